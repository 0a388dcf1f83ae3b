import {
  Activity,
  Boxes,
  CalendarClock,
  Gauge,
  History,
  House,
  KeyRound,
  ListTree,
  Play,
  Plug,
  Settings,
} from "lucide-react";

export interface PageEntry {
  to:
    | "/"
    | "/workflows"
    | "/runs"
    | "/assets"
    | "/backfills"
    | "/triggers"
    | "/limits"
    | "/events"
    | "/connections"
    | "/variables"
    | "/admin";
  word: string;
  icon: typeof House;
  /** Pressed after `g`. */
  key: string;
  gapBefore?: boolean;
}

export const PAGES: PageEntry[] = [
  { to: "/", word: "Home", icon: House, key: "h" },
  { to: "/workflows", word: "Workflows", icon: ListTree, key: "w" },
  { to: "/runs", word: "Runs", icon: Play, key: "r" },
  { to: "/assets", word: "Assets", icon: Boxes, key: "a" },
  { to: "/triggers", word: "Triggers", icon: CalendarClock, key: "t", gapBefore: true },
  { to: "/backfills", word: "Backfills", icon: History, key: "b" },
  { to: "/limits", word: "Limits", icon: Gauge, key: "l" },
  { to: "/events", word: "Events", icon: Activity, key: "e" },
  { to: "/connections", word: "Connections", icon: Plug, key: "c", gapBefore: true },
  { to: "/variables", word: "Variables", icon: KeyRound, key: "v" },
  { to: "/admin", word: "Admin", icon: Settings, key: "d" },
];
