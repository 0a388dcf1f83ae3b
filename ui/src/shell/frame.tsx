import { Link, Outlet, useNavigate, useRouterState } from "@tanstack/react-router";
import { CircleHelp, Menu as MenuIcon, Moon, PanelLeft, Search, Sun, SunMoon } from "lucide-react";
import { lazy, Suspense, useEffect, useRef, useState } from "react";
import { ApiError } from "../api/client";
import { useApi } from "../api/hooks";
import { retryNow, useLive } from "../api/live";
import type { Health, Me } from "../api/types";
import { useAddress } from "../parts/address";
import { Menu } from "../parts/basics";
import { Mark } from "../parts/mark";
import { Ago, useNow } from "../parts/time";
import { Toasts } from "../parts/toast";
import { useTrail } from "./crumbs";
import { startKeys, useKeys } from "./keys";
import { PAGES } from "./pages";
import { setPrefs, usePrefs, useWorkflowZoneName, useZone } from "./prefs";
import { SignIn } from "./sign-in";

const Palette = lazy(() => import("./palette"));
const Help = lazy(() => import("./help"));

export function Frame() {
  const prefs = usePrefs();
  const [menu, setMenu] = useState(false);
  const [palette, setPalette] = useState(false);
  const [help, setHelp] = useState(false);
  const navigate = useNavigate();
  const path = useRouterState({ select: (state) => state.location.pathname });
  const main = useRef<HTMLElement>(null);
  const me = useApi<Me>("/me");

  useEffect(() => startKeys(), []);
  // What a key opens must be there when it is pressed.
  useEffect(() => {
    const timer = setTimeout(() => void import("./palette").catch(() => {}), 600);
    return () => clearTimeout(timer);
  }, []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new page closes the narrow menu
  useEffect(() => setMenu(false), [path]);

  useKeys("Everywhere", [
    { keys: "ctrl+k", word: "Search and commands", run: () => setPalette(true) },
    { keys: "?", word: "This list", run: () => setHelp(true) },
    {
      keys: "/",
      word: "Filter what is listed",
      run: () => document.querySelector<HTMLInputElement>("[data-filter]")?.focus(),
    },
    ...PAGES.map((page) => ({
      keys: `g ${page.key}`,
      word: page.word,
      run: () => void navigate({ to: page.to }),
    })),
  ]);

  if (me.error instanceof ApiError && me.error.status === 401) {
    return <SignIn onDone={() => void me.refetch()} />;
  }
  return (
    <div className={`frame${prefs.folded ? " folded" : ""}`}>
      <button type="button" className="skip" onClick={() => main.current?.focus()}>
        Skip to the content
      </button>
      <nav className={`rail${menu ? " open" : ""}`} aria-label="Pages">
        <Link to="/" className="brand" aria-label="Kobza, home">
          <img src="/favicon.svg" alt="" width={20} height={20} />
          <span className="rail-word">Kobza</span>
        </Link>
        {PAGES.map((page) => (
          <RailLink key={page.to} page={page} path={path} folded={prefs.folded} />
        ))}
        <span className="grow" />
        <button
          type="button"
          className="rail-item"
          onClick={() => setHelp(true)}
          title="Keys (?)"
          aria-label="Keys"
        >
          <CircleHelp size={16} aria-hidden />
          <span className="rail-word">Keys</span>
        </button>
        <button
          type="button"
          className="rail-item rail-fold"
          onClick={() => setPrefs({ folded: !prefs.folded })}
          title={prefs.folded ? "Unfold" : "Fold to icons"}
          aria-label={prefs.folded ? "Unfold the menu" : "Fold the menu to icons"}
        >
          <PanelLeft size={16} aria-hidden />
          <span className="rail-word">Fold</span>
        </button>
      </nav>
      <header className="top">
        <button
          type="button"
          className="button plain square menu-button"
          aria-label="Pages"
          aria-expanded={menu}
          onClick={() => setMenu(!menu)}
        >
          <MenuIcon size={17} />
        </button>
        <Crumbs />
        <button
          type="button"
          className="search-button"
          title="Search and commands (Ctrl-K)"
          onClick={() => setPalette(true)}
        >
          <Search size={14} aria-hidden />
          <span className="word">Search</span>
          <kbd aria-hidden>Ctrl K</kbd>
        </button>
        {me.data && me.data.namespaces.length > 1 ? (
          <NamespaceMenu names={me.data.namespaces} />
        ) : null}
        <ZoneMenu />
        <ThemeMenu />
        <HealthDot />
      </header>
      <main className="main" id="main" ref={main} tabIndex={-1}>
        <Banner />
        <Outlet />
      </main>
      <Toasts />
      <Suspense fallback={null}>
        {palette ? <Palette onClose={() => setPalette(false)} /> : null}
        {help ? <Help onClose={() => setHelp(false)} /> : null}
      </Suspense>
    </div>
  );
}

function RailLink({
  page,
  path,
  folded,
}: {
  page: (typeof PAGES)[number];
  path: string;
  folded: boolean;
}) {
  const Icon = page.icon;
  const active =
    page.to === "/"
      ? path === "/"
      : path === page.to ||
        path.startsWith(`${page.to}/`) ||
        (page.to === "/assets" && path.startsWith("/asset/")) ||
        (page.to === "/runs" && (path.startsWith("/tasks/") || path === "/compare"));
  return (
    <>
      {page.gapBefore ? <div className="rail-gap" /> : null}
      <Link
        to={page.to}
        className={`rail-item${active ? " active" : ""}`}
        {...(active ? { "aria-current": "page" as const } : {})}
        title={folded ? page.word : undefined}
        aria-label={page.word}
      >
        <Icon size={16} aria-hidden />
        <span className="rail-word">{page.word}</span>
      </Link>
    </>
  );
}

function Crumbs() {
  const trail = useTrail();
  return (
    <nav className="crumbs" aria-label="Where you are">
      {trail.map((crumb, i) => {
        const last = i === trail.length - 1;
        return (
          <span key={crumb.key} className="row cut" {...(last ? { "aria-current": "page" } : {})}>
            {i > 0 ? <span className="sep wide-only">/</span> : null}
            <span className="cut">{crumb.node}</span>
          </span>
        );
      })}
    </nav>
  );
}

/** Another namespace is another set of workflows: it opens at its own home. */
function NamespaceMenu({ names }: { names: string[] }) {
  const [search] = useAddress();
  const here = search.namespace ?? "default";
  return (
    <Menu
      label={`Namespace ${here}`}
      className="button plain"
      button={<span className="cut namespace-name">{here}</span>}
    >
      {names.map((name) => (
        // The page is loaded anew: nothing of one namespace may be shown in another.
        <a
          key={name}
          href={name === "default" ? "/" : `/?namespace=${encodeURIComponent(name)}`}
          {...(name === here ? { "aria-current": "true" as const } : {})}
        >
          <span className="grow cut">{name}</span>
          {name === here ? "✓" : ""}
        </a>
      ))}
    </Menu>
  );
}

function ZoneMenu() {
  const prefs = usePrefs();
  const zone = useZone();
  const workflow = useWorkflowZoneName();
  const short = zone === "UTC" ? "UTC" : (zone.split("/").at(-1) ?? zone).replaceAll("_", " ");
  return (
    <Menu label={`Times are in ${zone}`} className="button plain" button={<span>{short}</span>}>
      <button type="button" onClick={() => setPrefs({ zone: "utc" })}>
        <span className="grow">UTC</span>
        {prefs.zone === "utc" ? "✓" : ""}
      </button>
      <button type="button" onClick={() => setPrefs({ zone: "local" })}>
        <span className="grow">
          This browser{" "}
          <span className="quiet">{Intl.DateTimeFormat().resolvedOptions().timeZone}</span>
        </span>
        {prefs.zone === "local" ? "✓" : ""}
      </button>
      <button type="button" onClick={() => setPrefs({ zone: "workflow" })}>
        <span className="grow">
          The workflow's <span className="quiet">{workflow ?? "where it has one"}</span>
        </span>
        {prefs.zone === "workflow" ? "✓" : ""}
      </button>
    </Menu>
  );
}

function ThemeMenu() {
  const { theme } = usePrefs();
  const Icon = theme === "dark" ? Moon : theme === "light" ? Sun : SunMoon;
  return (
    <Menu label="Theme" className="button plain square" button={<Icon size={16} />}>
      {(
        [
          ["light", "Light"],
          ["dark", "Dark"],
          ["system", "As the system"],
        ] as const
      ).map(([key, word]) => (
        <button key={key} type="button" onClick={() => setPrefs({ theme: key })}>
          <span className="grow">{word}</span>
          {theme === key ? "✓" : ""}
        </button>
      ))}
    </Menu>
  );
}

function HealthDot() {
  const live = useLive();
  const health = useApi<Health>("/health");
  const down = live.state === "down";
  const degraded = health.data !== undefined && health.data.status !== "ok";
  const word = down ? "No connection" : degraded ? "Degraded" : "Healthy";
  return (
    <Link
      to="/admin"
      search={{ tab: "health" } as never}
      className="health-dot"
      title={`Server: ${word}`}
    >
      <Mark
        state={down ? "failed" : degraded ? "retry_wait" : "succeeded"}
        title={`Server: ${word}`}
      />
    </Link>
  );
}

function Banner() {
  const live = useLive();
  const down = live.state === "down";
  const now = useNow(down);
  if (!down) return null;
  const seconds = live.retryAt === null ? 0 : Math.max(0, Math.ceil((live.retryAt - now) / 1000));
  return (
    <div className="banner" role="alert">
      <Mark state="failed" />
      <span className="grow">
        <span className="strong">The server does not answer.</span> What you see is from{" "}
        <Ago at={new Date(live.heardAt).toISOString()} />; what you typed is kept.
      </span>
      <span className="quiet">{seconds > 0 ? `Tried again in ${seconds} s` : "Trying…"}</span>
      <button type="button" className="button" onClick={retryNow}>
        Try now
      </button>
    </div>
  );
}
