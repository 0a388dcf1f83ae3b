// Which system's words the parts below speak.

import { createContext, type ReactNode, useContext, useMemo } from "react";
import { wordOf } from "../model/states";
import { NATIVE, type Words, wordsOf } from "./words";

const Context = createContext<Words>(NATIVE);

export function Dialect({ of, children }: { of: string | null | undefined; children: ReactNode }) {
  const words = useMemo(() => wordsOf(of), [of]);
  return <Context.Provider value={words}>{children}</Context.Provider>;
}

export const useWords = (): Words => useContext(Context);

/** A state's word in the dialect around. */
export function useStateWord(): (state: string) => string {
  const { states } = useWords();
  return useMemo(
    () => (state: string) => (Object.hasOwn(states, state) ? states[state] : null) ?? wordOf(state),
    [states],
  );
}
