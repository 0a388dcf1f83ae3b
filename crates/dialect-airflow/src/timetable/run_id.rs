//! Ids of runs, as Airflow writes them.

use std::fmt;

use jiff::tz::Offset;
use kobza_model::Timestamp;

/// What made a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunType {
    Backfill,
    Scheduled,
    Manual,
    OperatorTriggered,
    AssetTriggered,
    AssetMaterialization,
}

impl RunType {
    pub const ALL: [Self; 6] = [
        Self::Backfill,
        Self::Scheduled,
        Self::Manual,
        Self::OperatorTriggered,
        Self::AssetTriggered,
        Self::AssetMaterialization,
    ];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Scheduled => "scheduled",
            Self::Manual => "manual",
            Self::OperatorTriggered => "operator_triggered",
            Self::AssetTriggered => "asset_triggered",
            Self::AssetMaterialization => "asset_materialization",
        }
    }

    /// What an id says; one of another form is a manual run's.
    #[must_use]
    pub fn of_run_id(run_id: &str) -> Self {
        let says = |kind: &Self| {
            run_id.strip_prefix(kind.word()).is_some_and(|rest| rest.starts_with("__"))
        };
        Self::ALL.into_iter().find(says).unwrap_or(Self::Manual)
    }

    /// The id that runs get where no timetable is asked: those of tasks that start DAGs, of assets
    /// and of the scheduler itself. `random` is added to a run without a logical date.
    #[must_use]
    pub fn run_id(self, logical_date: Option<Timestamp>, run_after: &str, random: &str) -> String {
        match logical_date {
            Some(_) => format!("{self}__{run_after}"),
            None => format!("{self}__{run_after}_{random}"),
        }
    }
}

impl fmt::Display for RunType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Python's `datetime.isoformat()` of an instant in UTC.
#[must_use]
pub fn isoformat(at: Timestamp) -> String {
    isoformat_at(at, 0)
}

/// The same with the offset in seconds that somebody wrote the time with.
#[must_use]
pub fn isoformat_at(at: Timestamp, offset: i32) -> String {
    written(at, offset, 'T')
}

/// Python's `str()` of the same instant in UTC.
pub(crate) fn python_str(at: Timestamp) -> String {
    written(at, 0, ' ')
}

fn written(at: Timestamp, offset: i32, between: char) -> String {
    let zone = Offset::from_seconds(offset).unwrap_or(Offset::UTC);
    let civil = zone.to_datetime(at.to_jiff());
    let (year, month, day) = (civil.year(), civil.month(), civil.day());
    let (hour, minute, second) = (civil.hour(), civil.minute(), civil.second());
    let micros = match civil.subsec_nanosecond() / 1000 {
        0 => String::new(),
        micros => format!(".{micros:06}"),
    };
    let sign = if zone.seconds() < 0 { '-' } else { '+' };
    let away = zone.seconds().unsigned_abs();
    let seconds = match away % 60 {
        0 => String::new(),
        seconds => format!(":{seconds:02}"),
    };
    format!(
        "{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}{micros}\
         {sign}{:02}:{:02}{seconds}",
        away / 3600,
        away / 60 % 60
    )
}

/// Eight letters and digits out of random bytes.
#[must_use]
pub fn random_suffix(random: [u8; 8]) -> String {
    const CHOICES: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    random.iter().map(|byte| char::from(CHOICES[usize::from(*byte) % CHOICES.len()])).collect()
}
