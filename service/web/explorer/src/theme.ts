/** Light or dark: as the system has it, or as somebody chose on this page. */

const NAME = "vecgate-theme";

export type Theme = "auto" | "light" | "dark";

export function readTheme(): Theme {
  try {
    const kept = localStorage.getItem(NAME);
    return kept === "light" || kept === "dark" ? kept : "auto";
  } catch {
    return "auto"; // Storage may be off.
  }
}

export function applyTheme(theme: Theme): void {
  if (theme === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
  window.dispatchEvent(new Event("themechange"));
}

export function keepTheme(theme: Theme): void {
  applyTheme(theme);
  try {
    if (theme === "auto") localStorage.removeItem(NAME);
    else localStorage.setItem(NAME, theme);
  } catch {
    // Then it holds for this page.
  }
}

/** Call a listener whenever colours change, by a choice on this page or with the system, until the signal ends that. */
export function onThemeChange(listener: () => void, signal: AbortSignal): void {
  window.addEventListener("themechange", listener, { signal });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", listener, { signal });
}

/** A colour of the style sheet by its name, such as "accent", for a canvas. */
export function themeColour(name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
