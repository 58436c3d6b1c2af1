"""One conversation by HTTP with an archive, whose faults become errors that quote nothing of it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lamina.errors import LaminaError, PacsError, UnreachableError
from lamina.io.pacs.access import Access, Address
from lamina.io.pacs.objects import silent

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient
    from requests import HTTPError, Session

_log = logging.getLogger(__name__)

_CONNECT_S = 10.0
_NOT_UNDERSTOOD = (AttributeError, LookupError, TypeError, ValueError)
"""What is raised where an answer is not as the standard wants it."""
_BUSY = (408, 429, 502, 503, 504)
"""What an archive, or what stands before it, says while it starts or has too much to do."""


class NothingThereError(PacsError):
    """What was asked for is not there."""


@contextmanager
def speaking(address: Address, access: Access) -> Iterator["DICOMwebClient"]:
    """Yield what speaks for us; turn what it raises into errors that quote nothing."""
    from pydicom.errors import InvalidDicomError
    from requests import exceptions

    with _session(address, access) as session, silent():
        try:
            yield _client_of(address, session, access.timeout)
        except exceptions.HTTPError as error:
            raise _refusal(address, error) from None
        except exceptions.SSLError:
            raise PacsError(
                f"{address}: its certificate is not trusted, or TLS fails.",
                remedy="Give the certificate of who signed it by --ca.",
            ) from None
        except (exceptions.ConnectionError, exceptions.ChunkedEncodingError):
            raise UnreachableError(f"{address}: cannot be reached, or broke off.") from None
        except exceptions.Timeout:
            raise UnreachableError(f"{address}: no answer within {access.timeout:g} s.") from None
        except (exceptions.RequestException, InvalidDicomError, *_NOT_UNDERSTOOD):
            raise PacsError(
                f"{address}: its answer is no DICOMweb.",
                remedy="Check the address; its path often ends in /dicom-web or /rs.",
            ) from None


def _session(address: Address, access: Access) -> "Session":
    from requests import Session

    session = Session()
    session.trust_env = False  # neither proxies nor passwords that nobody named
    session.verify = str(access.ca) if access.ca else True
    if secret := _secret(access):
        if not address.is_private:
            _log.warning("%s: the secret is sent without encryption; use https.", address)
        if access.user:
            session.auth = (access.user, secret)
        else:
            session.headers["Authorization"] = f"Bearer {secret}"
    return session


def _secret(access: Access) -> str:
    """Return the secret; while a file is renewed it may not be there, and we are not let in."""
    try:
        return access.read_secret()
    except LaminaError as error:
        raise PacsError(error.message, remedy=error.remedy) from error


def _client_of(address: Address, session: "Session", timeout: float) -> "DICOMwebClient":
    from dicomweb_client.web import DICOMwebClient

    client = DICOMwebClient(
        str(address),
        session=session,
        timeout=(min(timeout, _CONNECT_S), timeout),
        permissive_uid=True,
    )
    client.set_http_retry_params(retry=False)
    return client


def _refusal(name: Address, error: "HTTPError") -> PacsError:
    status = 0 if error.response is None else error.response.status_code
    if status in _BUSY:
        return UnreachableError(f"{name}: is not ready (HTTP {status}).")
    if status in (401, 403):
        return PacsError(
            f"{name}: does not let us in (HTTP {status}).",
            remedy="Give a user by --user, and say where the password or token is by --secret.",
        )
    if status == 404:
        return NothingThereError(f"{name}: has nothing there (404).", remedy="Check the address.")
    return PacsError(f"{name}: refuses (HTTP {status}).", remedy="Its own log says why.")
