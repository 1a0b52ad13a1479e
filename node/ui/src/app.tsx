/** The frame: the name, the tabs, the language, and the page that the address names. */

import { effect } from "@preact/signals";
import { reachable, servedBy } from "./api";
import { ClusterPage } from "./cluster/cluster";
import { DrawPage } from "./draw/draw";
import { rows, startJobs } from "./draw/jobs";
import { isOver } from "./draw/tracked";
import { route, type Route } from "./route";
import { language, t } from "./texts";

startJobs();
effect(() => {
  const open = rows.value.filter((row) => !isOver(row)).length;
  document.title = `${open > 0 ? `(${open}) ` : ""}${route.value === "draw" ? t.value.tabDraw : t.value.tabCluster} – Atelier`;
});

export function App() {
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>{t.value.skip}</a>
      <header class="top">
        <span class="name">Atelier</span>
        <nav aria-label={t.value.tabs}>
          <Tab to="draw" href="#/" text={t.value.tabDraw} />
          <Tab to="cluster" href="#/cluster" text={t.value.tabCluster} />
        </nav>
        <span class="served">{servedBy.value > 0 ? t.value.answeredBy(servedBy.value) : ""}</span>
        <button
          type="button"
          class="quiet"
          lang={language.value === "en" ? "zh-CN" : "en"}
          aria-label={t.value.languageSwitchLabel}
          onClick={() => (language.value = language.value === "en" ? "zh" : "en")}
        >
          {t.value.languageSwitch}
        </button>
      </header>
      <div role="status">{!reachable.value && <p class="banner">{t.value.unreachable}</p>}</div>
      <main id="main" tabIndex={-1}>{route.value === "draw" ? <DrawPage /> : <ClusterPage />}</main>
    </>
  );
}

/** The hash names the tab, so that the link's own would leave it. */
function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Tab({ to, href, text }: { to: Route; href: string; text: string }) {
  return (
    <a href={href} aria-current={route.value === to ? "page" : undefined}>{text}</a>
  );
}
