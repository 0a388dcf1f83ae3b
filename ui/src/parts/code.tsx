// Code to read, with an error marked at its line, or two versions beside each other. The editor
// lives in a shadow root: there its styles are constructed sheets, which the content security
// policy allows, where style elements are not.

import { json } from "@codemirror/lang-json";
import { python } from "@codemirror/lang-python";
import { sql } from "@codemirror/lang-sql";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { unifiedMergeView } from "@codemirror/merge";
import { EditorState, type Extension, RangeSetBuilder } from "@codemirror/state";
import { Decoration, EditorView, lineNumbers, WidgetType } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { useEffect, useRef } from "react";

const COLOURS = HighlightStyle.define([
  { tag: [tags.keyword, tags.definitionKeyword, tags.operatorKeyword], color: "var(--a5)" },
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--a4)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--a2)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--a3)" },
  { tag: tags.comment, color: "var(--ink-3)", fontStyle: "italic" },
  { tag: [tags.function(tags.variableName), tags.className], color: "var(--a6)" },
]);

const LOOK = EditorView.theme({
  "&": { backgroundColor: "var(--panel)", color: "var(--ink)", fontSize: "12px" },
  "&.cm-focused": { outline: "2px solid var(--focus)", outlineOffset: "-2px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "18px" },
  ".cm-gutters": {
    backgroundColor: "var(--panel)",
    color: "var(--ink-3)",
    border: "none",
    paddingRight: "6px",
  },
  ".cm-bad": { backgroundColor: "var(--failed-tint)" },
  ".cm-bad-text": {
    color: "var(--failed-ink)",
    fontFamily: "var(--sans)",
    padding: "2px 6px 4px",
    backgroundColor: "var(--failed-tint)",
  },
  ".cm-changedLine, .cm-inlineChangedLine": {
    backgroundColor: "color-mix(in srgb, var(--succeeded) 14%, transparent) !important",
  },
  ".cm-deletedChunk": {
    backgroundColor: "color-mix(in srgb, var(--failed) 13%, transparent) !important",
  },
  ".cm-changedText": {
    background: "color-mix(in srgb, var(--succeeded) 30%, transparent) !important",
  },
  ".cm-deletedText": {
    background: "color-mix(in srgb, var(--failed) 30%, transparent) !important",
  },
});

function languageOf(word: string): Extension {
  switch (word) {
    case "yaml":
      return yaml();
    case "python":
      return python();
    case "json":
      return json();
    case "sql":
      return sql();
    default:
      return [];
  }
}

class Message extends WidgetType {
  constructor(readonly text: string) {
    super();
  }

  override eq(other: Message): boolean {
    return other.text === this.text;
  }

  toDOM(): HTMLElement {
    const element = document.createElement("div");
    element.className = "cm-bad-text";
    element.textContent = this.text;
    return element;
  }
}

function errorMark(state: EditorState, line: number, text: string): Extension {
  const at = state.doc.line(Math.min(Math.max(1, line), state.doc.lines));
  const builder = new RangeSetBuilder<Decoration>();
  builder.add(at.from, at.from, Decoration.line({ class: "cm-bad" }));
  builder.add(at.to, at.to, Decoration.widget({ widget: new Message(text), block: true, side: 1 }));
  return EditorView.decorations.of(builder.finish());
}

export default function Code({
  text,
  language,
  against,
  error,
  height,
}: {
  text: string;
  language: string;
  /** An older text: what changed since is shown. */
  against?: string | null;
  error?: { line: number | null; message: string } | null;
  height?: string;
}) {
  const host = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const shadow = element.shadowRoot ?? element.attachShadow({ mode: "open" });
    const base: Extension[] = [
      lineNumbers(),
      syntaxHighlighting(COLOURS),
      LOOK,
      languageOf(language),
      EditorState.readOnly.of(true),
      EditorView.contentAttributes.of({ "aria-label": "Code", tabindex: "0" }),
      ...(height ? [EditorView.theme({ "&": { maxHeight: height } })] : []),
    ];
    const plain = EditorState.create({ doc: text });
    if (error?.line) base.push(errorMark(plain, error.line, error.message));
    if (typeof against === "string") {
      base.push(
        unifiedMergeView({
          original: against,
          mergeControls: false,
          collapseUnchanged: { margin: 3, minSize: 6 },
        }),
      );
    }
    const view = new EditorView({
      state: EditorState.create({ doc: text, extensions: base }),
      parent: shadow,
      root: shadow,
    });
    if (error?.line) {
      const line = view.state.doc.line(Math.min(Math.max(1, error.line), view.state.doc.lines));
      view.dispatch({ effects: EditorView.scrollIntoView(line.from, { y: "center" }) });
    }
    return () => view.destroy();
  }, [text, language, against, error, height]);
  return <div ref={host} className="code" />;
}
