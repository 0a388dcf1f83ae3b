import { CopyButton } from "../parts/basics";

const EXAMPLE = `name: hello
tasks:
  greet: {shell: "echo hello from Kobza"}
  count: {shell: "seq 5", needs: greet}
`;

const COMMAND = `cat > hello.yaml <<'END'
${EXAMPLE}END
kobza workflows put hello.yaml
kobza runs start hello`;

export default function FirstSteps() {
  return (
    <section className="card">
      <header>
        <h2 className="grow">Start here</h2>
        <CopyButton text={COMMAND} label="Copy" />
      </header>
      <div className="body stack">
        <p>No workflow has run yet. This makes one of two tasks and runs it:</p>
        <pre className="sample">{COMMAND}</pre>
        <p className="quiet">
          A server started with <code>--workflows DIR</code> reads every file there by itself.
        </p>
      </div>
    </section>
  );
}
