import { Dialog } from "../parts/basics";
import { useKeyGroups } from "./keys";

export default function Help({ onClose }: { onClose: () => void }) {
  const groups = useKeyGroups();
  return (
    <Dialog title="Keys" onClose={onClose} width={620}>
      <div className="help-groups">
        {[...groups].reverse().map((group) => (
          <section key={group.title}>
            <h2>{group.title}</h2>
            <dl className="facts">
              {group.actions.map((action) => (
                <div key={action.keys} style={{ display: "contents" }}>
                  <dt>
                    <kbd>{action.keys}</kbd>
                  </dt>
                  <dd>{action.word}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
        <section>
          <h2>Lists, grid and graph</h2>
          <dl className="facts">
            <dt>
              <kbd>↑</kbd> <kbd>↓</kbd>
            </dt>
            <dd>Move</dd>
            <dt>
              <kbd>Enter</kbd>
            </dt>
            <dd>Open</dd>
            <dt>
              <kbd>Space</kbd>
            </dt>
            <dd>Choose</dd>
            <dt>
              <kbd>Esc</kbd>
            </dt>
            <dd>Close the panel</dd>
          </dl>
        </section>
      </div>
    </Dialog>
  );
}
