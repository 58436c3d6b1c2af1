// Light or dark before anything is drawn: as the system has it, unless the user has chosen.
"use strict";
(() => {
  const order = ["system", "light", "dark"];
  const read = () => {
    try {
      return localStorage.getItem("lamina-theme");
    } catch {
      return null; // storage may be forbidden
    }
  };
  let theme = order.includes(read()) ? read() : "system";
  const root = document.documentElement;
  const apply = () => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
  };
  apply();

  window.laminaTheme = {
    get: () => theme,
    next() {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      apply();
      try {
        localStorage.setItem("lamina-theme", theme);
      } catch {
        // then it lasts as long as the page
      }
      return theme;
    },
  };
})();
