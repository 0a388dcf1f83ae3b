//! The nightly ETL, as `make demo` runs it, on a small sample: no network.

use std::process::{Command, Output};

use crate::machine::{Folder, text};

/// Makes sources of the same form as the packages': a few flights a day, their weather, two films.
const SAMPLE: &str = r#"
import csv, io, sqlite3, sys, zipfile
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir()
flights, weather = io.StringIO(), io.StringIO()
out, sky = csv.writer(flights), csv.writer(weather)
out.writerow("year month day carrier flight origin dest hour dep_delay distance".split())
sky.writerow("year month day origin hour temp wind_speed precip visib".split())
for day in range(1, 21):
    for hour in (6, 9, 18):
        out.writerow([2013, 3, day, "UA", 100 + hour, "EWR", "ORD", hour, hour - 8, 719])
    for hour in range(24):
        sky.writerow([2013, 3, day, "EWR", hour, 39.5, "NA", 0, 10])
(folder / "weather.csv").write_text(weather.getvalue())
with zipfile.ZipFile(folder / "flights.csv.zip", "w") as archive:
    archive.writestr("flights.csv", flights.getvalue())
db = sqlite3.connect(folder / "movies.db")
db.execute("create table omdb (ID int, Title text, Year int, imdbRating real)")
db.executemany("insert into omdb values (?, ?, ?, ?)", [(1, "A", 1990, 7.5), (2, "B", 2000, None)])
db.commit()
"#;

struct Demo {
    folder: Folder,
}

impl Demo {
    fn new() -> Self {
        let folder = Folder::new();
        let made = Command::new("python3")
            .args(["-c", SAMPLE, "data"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        Self { folder }
    }

    fn call(&self, args: &[&str], environment: &[(&str, &str)]) -> Output {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/nightly-etl/demo.py");
        Command::new("python3")
            .arg(script)
            .args(args)
            .env("KOBZA_DEMO", self.folder.path().join("demo"))
            .env("KOBZA_DEMO_DATA", self.folder.path().join("data"))
            .env("KOBZA_DEMO_PORT", "0")
            .env_remove("WAREHOUSE")
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    fn start(&self, environment: &[(&str, &str)]) -> Output {
        self.call(&["start", env!("CARGO_BIN_EXE_kobza")], environment)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.call(&["stop"], &[]);
    }
}

#[test]
fn fourteen_days_over_the_clock_change() {
    let demo = Demo::new();
    let first = demo.start(&[]);
    let shown = text(&first.stdout);
    assert!(first.status.success(), "{shown}{}", text(&first.stderr));
    // The day of the clock change has 23 hours, and no day is missing or there twice.
    assert!(shown.contains("2013-03-09T07:00:00Z to 2013-03-10T07:00:00Z"), "{shown}");
    assert!(shown.contains("2013-03-10T07:00:00Z to 2013-03-11T06:00:00Z"), "{shown}");
    assert!(shown.contains("flights          42 rows of 14 day(s)"), "{shown}");
    assert!(shown.contains("weather         336 rows of 14 day(s)"), "{shown}");
    assert!(shown.contains("movies           28 rows of 14 day(s)"), "{shown}");
    // The second time there is nothing to do.
    let again = demo.start(&[]);
    let shown = text(&again.stdout);
    assert!(again.status.success(), "{shown}{}", text(&again.stderr));
    assert!(shown.contains("14 skipped"), "{shown}");
    assert!(shown.contains("flights          42 rows of 14 day(s)"), "{shown}");
    let report = demo.folder.read("demo/results/report-2013-03-10.html");
    assert!(report.contains("<svg"), "{report}");
    for word in ["server: stopped", "server: does not run"] {
        let stop = demo.call(&["stop"], &[]);
        assert!(text(&stop.stdout).contains(word), "{}", text(&stop.stdout));
    }
}

#[test]
fn a_bad_row_blocks_the_publish_of_its_day() {
    let demo = Demo::new();
    let bad = demo.start(&[("ETL_BAD_ROW", "2013-03-10")]);
    let shown = text(&bad.stdout);
    assert_eq!(bad.status.code(), Some(1), "{shown}{}", text(&bad.stderr));
    assert!(shown.contains("flights          39 rows of 13 day(s)"), "{shown}");
    assert!(shown.contains("1 failed"), "{shown}");
    // Mended, only what is missing runs.
    demo.call(&["stop"], &[]);
    let good = demo.start(&[]);
    let shown = text(&good.stdout);
    assert!(good.status.success(), "{shown}{}", text(&good.stderr));
    assert!(shown.contains("1 succeeded, 13 skipped"), "{shown}");
    assert!(shown.contains("flights          42 rows of 14 day(s)"), "{shown}");
}
