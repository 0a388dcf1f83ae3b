-- How many runs ended in an hour (of the epoch, UTC), by namespace (a word) and state; kept with
-- every commit.
CREATE TABLE IF NOT EXISTS run_hour (
    namespace BIGINT NOT NULL,
    hour BIGINT NOT NULL,
    state SMALLINT NOT NULL,
    runs BIGINT NOT NULL,
    PRIMARY KEY (namespace, hour, state)
);

INSERT INTO word (word) SELECT DISTINCT namespace FROM workflow WHERE true
    ON CONFLICT (word) DO NOTHING;
INSERT INTO run_hour (namespace, hour, state, runs)
    SELECT n.word_no, r.ended_at / 3600000000, r.state, count(*)
    FROM run r
    JOIN workflow w ON w.workflow_no = r.workflow_no
    JOIN word n ON n.word = w.namespace
    WHERE r.state >= 4 AND r.ended_at IS NOT NULL
    GROUP BY 1, 2, 3
    ON CONFLICT (namespace, hour, state) DO NOTHING;
