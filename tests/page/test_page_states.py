"""The page as a job comes and goes, against a server that stands in for the real one."""

import re

import pytest
from stand_in import StandIn, job, model, running

HOSTILE = """\
# Card of <b>a\\_model</b>

| Structure | Value \\| more |
| --- | --- |
| liver <img src=x onerror="window.hurt = 1"> | **1** |

- [click](javascript:window.hurt=1) `code`
- <script>window.hurt = 1</script>

    lamina predict -i "<SCAN>"
"""


@pytest.fixture
def server():
    with running(StandIn([model(), model("second", channels=["T1", "T2"])])) as started:
        yield started


def text(page, selector):
    return " ".join(page.inner_text(selector).split())


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_scan_is_sent_waits_runs_and_fails_with_a_remedy(server, visit):
    name = "<img src=x onerror=hurt()>.nii.gz"
    with visit(server.url) as page:
        assert page.is_disabled("#go")
        page.set_input_files("#files", [{"name": name, "mimeType": "", "buffer": b"voxels"}])
        page.check("#models input[value=second]")
        assert "2 channels together: T1, T2" in text(page, "#needs")
        page.click("#go")
        page.wait_for_selector("#running:not([hidden])")
        assert server.uploads == [("second", {name: b"voxels"})]
        assert text(page, "#job-name") == name
        assert text(page, "#elapsed") == "2 before it in the queue"
        assert fits(page)

        (job_id,) = server.jobs
        server.tell(job_id, state="running", stage="segmenting", progress=0.42, position=None)
        page.wait_for_selector("#percent:text-is('42 %')")
        assert text(page, "#stage") == "Segmenting"
        assert page.evaluate("document.querySelector('#progress').value") == 0.42
        assert text(page, "#live") == "Segmenting"

        error = {"message": "scan: is <b>damaged</b>.", "remedy": "Get the file again."}
        server.tell(job_id, state="failed", error=error)
        page.wait_for_selector("#ended:not([hidden])")
        assert "scan: is <b>damaged</b>. Get the file again." in text(page, "#ended")
        assert text(page, "#live") == "Failed"

        kept = page.evaluate("JSON.stringify([document.title, location.href, {...localStorage}])")
        assert "onerror" not in kept
        assert page.locator("img").count() == 1  # the brand


def given(page, *names):
    files = [{"name": name, "mimeType": "", "buffer": name.encode()} for name in names]
    page.set_input_files("#files", files)


def test_images_of_several_channels_are_told_apart(server, visit):
    with visit(server.url, width=390) as page:
        given(page, "a_t2.nii.gz", "b_T1.nii.gz")
        assert text(page, "#unfit") == "The model takes one scan at a time; 2 are chosen."
        assert page.is_disabled("#go")
        page.check("#models input[value=second]")
        chosen = page.get_by_role("combobox")
        assert chosen.count() == 2
        assert page.is_enabled("#go")
        said = [box.evaluate("box => box.selectedOptions[0].text") for box in chosen.all()]
        assert said == ["b_T1.nii.gz", "a_t2.nii.gz"]  # names tell, whatever their order
        assert page.get_by_role("combobox", name="T2").input_value() == "0"
        assert fits(page)

        chosen.nth(1).select_option("b_T1.nii.gz")
        assert text(page, "#unfit") == "One image is given to two channels."
        assert page.is_disabled("#go")
        chosen.nth(0).select_option("a_t2.nii.gz")
        page.click("#go")
        page.wait_for_selector("#running:not([hidden])")
        (sent,) = server.fields
        assert sent == {"T1": "a_t2.nii.gz", "T2": "b_T1.nii.gz"}


def test_images_of_several_channels_may_be_chosen_one_after_the_other(server, visit):
    with visit(server.url) as page:
        page.check("#models input[value=second]")
        given(page, "z.nii.gz")
        assert page.is_hidden("#channels")
        assert page.is_enabled("#go")  # it may hold both
        given(page, "a.nii.gz")
        assert text(page, "#chosen-name") == "z.nii.gz, a.nii.gz"
        first = page.get_by_role("combobox", name="T1")
        assert first.evaluate("box => box.selectedOptions[0].text") == "a.nii.gz"
        given(page, "1.nii.gz", "2.nii.gz", "3.nii.gz")
        assert "takes 2 images, or one that holds all channels; 3 are" in text(page, "#unfit")


def test_a_model_in_mm_asks_for_the_pixels_of_pictures_alone(server, visit):
    server.models.append(model("heads", channels=["grey"], spatial_dims=2))
    server.models.append(model("moles", channels=["grey"], spatial_dims=2, unit="px"))
    with visit(server.url, width=390) as page:
        page.check("#models input[value=heads]")
        size, go = page.get_by_label("Side of a pixel in mm"), page.locator("#go")
        given(page, "IM0001")  # DICOM, which may tell it
        assert size.is_visible()
        assert go.is_enabled()
        size.fill("-1")
        assert "must be above 0" in text(page, "#unfit")
        assert go.is_disabled()
        size.fill("")
        given(page, "head.PNG")
        assert "does not tell how large it is" in text(page, "#unfit")
        for wrong in ("0", "-1"):
            size.fill(wrong)
            assert go.is_disabled()
        page.check("#models input[value=moles]")
        assert size.is_hidden()
        go.click()
        page.wait_for_selector("#running:not([hidden])")
        page.goto(server.url)
        page.check("#models input[value=heads]")
        given(page, "head.PNG")
        size.fill("0.125")
        assert text(page, "#unfit") == ""
        assert fits(page)
        given(page, "other.png")
        assert size.input_value() == ""
        size.fill("0.25")
        go.click()
        page.wait_for_selector("#running:not([hidden])")
        assert server.sizes == [None, "0.25"]


def test_cards_are_shown_and_never_obeyed(visit):
    with running(StandIn([model(card=HOSTILE)])) as server, visit(server.url) as page:
        page.click("#card summary")
        card = page.locator("#card-text")
        assert card.locator("h3").inner_text() == "Card of <b>a_model</b>"
        assert card.locator("th").all_inner_texts() == ["Structure", "Value | more"]
        assert card.locator("td strong").inner_text() == "1"
        assert "<script>" in card.locator("li").all_inner_texts()[1]
        assert card.locator("pre").inner_text().startswith("lamina predict")
        assert card.locator("img, script, b, a").count() == 0
        assert page.evaluate("window.hurt") is None


def test_jobs_are_cancelled_and_deleted_only_after_asking(visit):
    with running(StandIn([model()], [job(1)])) as server, visit(server.url) as page:
        page.click("#history a")
        page.click("#cancel")
        page.wait_for_selector("#ended:not([hidden])")
        assert "Cancelled" in text(page, "#ended")
        page.click("#delete")
        page.click("#confirm button[value=no]")
        assert server.removed == []
        page.click("#delete")
        page.click("#confirm button[value=yes]")
        page.wait_for_selector("#no-history:not([hidden])")
        assert server.removed == [f"{1:032x}"]
        page.wait_for_function("() => document.activeElement.id === 'new-title'")


def test_history_is_reached_by_keys_and_fits_a_telephone(visit):
    error = {"message": "No scan.", "remedy": "Send one."}
    past = [job(1), job(2, state="failed", error=error, name="long_" * 30 + ".nii.gz")]
    with running(StandIn([model()], past)) as server, visit(server.url, width=390) as page:
        assert fits(page)
        page.focus("[data-tab=history]")
        page.keyboard.press("Enter")
        page.wait_for_selector("#history a >> visible=true")
        assert fits(page)
        page.keyboard.press("Tab")
        for _ in range(4):
            if page.evaluate("document.activeElement.closest('#history') !== null"):
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#ended:not([hidden])")
        assert "Send one." in text(page, "#ended")
        assert fits(page)


def test_a_dropped_folder_is_read_to_its_end(server, visit):
    with visit(server.url) as page:
        found = page.evaluate("""async () => {
            const { fromDrop } = await import("/static/picking.js");
            const made = (name) => new File(["x"], name);
            const file = (name) => ({ isFile: true, name, file: (give) => give(made(name)) });
            const folder = (name, inside) => ({ isFile: false, name, createReader: () => {
                const left = [...inside]; // browsers hand out a hundred at a time
                return { readEntries: (give) => give(left.splice(0, 100)) };
            }});
            const slices = Array.from({ length: 230 }, (_, i) => file(`${i}.dcm`));
            const entry = folder("CT", [folder("series", slices), file(".DS_Store")]);
            const items = [{ kind: "string" }, { kind: "file", webkitGetAsEntry: () => entry }];
            return (await fromDrop({ items })).map(({ path }) => path);
        }""")
    assert sorted(found) == sorted(f"CT/series/{i}.dcm" for i in range(230))


def test_a_server_that_refuses_is_heard(server, browser):
    server.refusal = {"error": {"message": "The queue is full.", "remedy": "Try again soon."}}
    page = browser.new_page()
    page.goto(server.url)
    page.wait_for_selector("#trouble:not([hidden])")
    assert "The queue is full. Try again soon." in text(page, "#trouble")
    page.context.close()


def test_a_server_that_was_away_is_heard_again(visit, faults):
    away = {"error": {"message": "Nobody is there.", "remedy": "Wait."}}

    def refused(end):
        return lambda answer: answer.url.endswith(end) and answer.status == 503

    with running(StandIn([model()], [job(1)])) as server, visit(server.url) as page:
        page.click("#history a")
        page.wait_for_selector("#running:not([hidden])")
        with page.expect_response(refused("/events")):
            server.refuse(away)
        page.wait_for_selector("#elapsed:has-text('the server is asked again')")
        page.wait_for_selector("#trouble:has-text('Nobody is there.')")
        page.evaluate("document.querySelector('#trouble').firstChild.isOld = true")
        for _ in range(2):
            with page.expect_response(refused("/api/jobs")):
                pass
        assert page.evaluate("document.querySelector('#trouble').firstChild.isOld")

        server.refuse(None)
        server.tell(f"{1:032x}", state="running", stage="segmenting", progress=0.3, position=None)
        page.wait_for_selector("#percent:text-is('30 %')")
        page.wait_for_selector("#trouble", state="hidden")
    assert all("503" in fault for fault in faults), faults
    faults.clear()


def test_a_scan_that_cannot_be_had_is_told_of_with_the_remedy(visit, faults):
    scan = {"name": "scan.nii.gz", "kind": "scan", "size_bytes": 1}
    gone = {"error": {"message": "The scan is gone.", "remedy": "Send it again."}}
    past = [job(1, state="done", files=[scan])]
    with running(StandIn([model()], past)) as server, visit(server.url) as page:
        page.route("**/files/*", lambda route: route.fulfill(status=410, json=gone))
        page.click("#history a")
        page.wait_for_selector("#loading:text-is('The scan is gone. Send it again.')")
    assert all("410" in fault for fault in faults), faults
    faults.clear()


def test_each_view_has_its_title_and_takes_the_focus(visit):
    with running(StandIn([model()], [job(1, name="A name.nii.gz")])) as server:
        with visit(server.url) as page:
            page.wait_for_function("() => document.title === 'New scan – Lamina'")
            page.click("#history a")
            page.wait_for_function("() => document.activeElement.id === 'job-name'")
            assert page.title() == "Result – Lamina"
            page.keyboard.press("n")
            page.wait_for_function("() => document.activeElement.id === 'new-title'")
            assert page.title() == "New scan – Lamina"
        with visit(f"{server.url}#/history", width=390) as page:
            page.wait_for_function("() => document.title === 'History – Lamina'")


def test_the_theme_follows_the_system_until_it_is_chosen(server, visit):
    ground = "getComputedStyle(document.body).backgroundColor"
    with visit(server.url, color_scheme="dark") as page:
        dark = page.evaluate(ground)
        page.click("#theme")
        light = page.evaluate(ground)
        assert sum(map(int, re.findall(r"\d+", light))) > sum(map(int, re.findall(r"\d+", dark)))
        page.reload()
        assert page.evaluate(ground) == light
        assert page.get_attribute("#theme", "aria-label") == "Theme: light"


def test_keys_are_explained_and_can_be_switched_off(server, visit):
    with visit(server.url) as page:
        page.wait_for_selector(".choice")
        page.keyboard.press("?")
        assert page.is_visible("#help-dialog")
        page.uncheck("#keys-on")
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert not page.is_visible("#help-dialog")
