// Light or dark: as the system is, until it is chosen here.

const dark = matchMedia("(prefers-color-scheme: dark)");
const KEY = "diptych-theme";

// Storage is refused to some pages that are opened as files: then the choice lasts as long as the page.
const stored = (work) => {
  try {
    return work(localStorage);
  } catch {
    return null;
  }
};

export const theme = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");

/** Take up an earlier choice, let `button` make another, and tell `onChange` of each change. */
export function follow(button, onChange) {
  const earlier = stored((storage) => storage.getItem(KEY));
  if (earlier === "light" || earlier === "dark") document.documentElement.dataset.theme = earlier;
  const changed = () => {
    button.textContent = theme() === "dark" ? "Light" : "Dark";
    onChange();
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
    stored((storage) => storage.setItem(KEY, theme()));
    changed();
  });
  dark.addEventListener("change", changed);
  button.textContent = theme() === "dark" ? "Light" : "Dark";
}
