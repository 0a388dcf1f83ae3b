//! Dates and times in templates: texts in RFC 3339 or ISO 8601, read, moved and written again.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp, Zoned};

/// A date, a local date and time, or an instant, as its text said.
#[derive(Clone, Debug)]
pub(super) enum Moment {
    Date(jiff::civil::Date),
    Local(DateTime),
    At(Zoned),
}

impl Moment {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(zoned) = text.parse::<Zoned>() {
            return Ok(Self::At(zoned));
        }
        let pieces = jiff::fmt::temporal::Pieces::parse(text)
            .map_err(|_| format!("`{}` is not a date or a time", short(text)))?;
        let Some(time) = pieces.time() else { return Ok(Self::Date(pieces.date())) };
        let local = pieces.date().to_datetime(time);
        let Some(offset) = pieces.to_numeric_offset() else { return Ok(Self::Local(local)) };
        let at =
            offset.to_timestamp(local).map_err(|_| format!("`{}` is out of range", short(text)))?;
        Ok(Self::At(at.to_zoned(zone_of(offset))))
    }

    pub(super) fn local(&self) -> DateTime {
        match self {
            Self::Date(date) => date.to_datetime(jiff::civil::Time::midnight()),
            Self::Local(local) => *local,
            Self::At(zoned) => zoned.datetime(),
        }
    }

    /// The instant; what has no offset is taken as UTC.
    pub(super) fn instant(&self) -> Result<Timestamp, String> {
        match self {
            Self::At(zoned) => Ok(zoned.timestamp()),
            other => Offset::UTC
                .to_timestamp(other.local())
                .map_err(|_| "the time is out of range".to_owned()),
        }
    }

    pub(super) fn plus(&self, span: Span) -> Result<Self, String> {
        let out_of_range = |_| "the result is out of range".to_owned();
        Ok(match self {
            // Hours move a date only as far as whole days go.
            Self::Date(date) => Self::Date(date.checked_add(span).map_err(out_of_range)?),
            Self::Local(local) => Self::Local(local.checked_add(span).map_err(out_of_range)?),
            Self::At(zoned) => Self::At(zoned.checked_add(span).map_err(out_of_range)?),
        })
    }

    pub(super) fn in_zone(&self, name: &str) -> Result<Self, String> {
        let zone = TimeZone::get(name)
            .map_err(|_| format!("`{}` is not a known time zone", short(name)))?;
        Ok(Self::At(self.instant()?.to_zoned(zone)))
    }

    pub(super) fn iso(&self) -> String {
        match self {
            Self::Date(date) => date.to_string(),
            Self::Local(local) => local.to_string(),
            Self::At(zoned) => zoned.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string(),
        }
    }

    pub(super) fn format(&self, format: &str) -> Result<String, String> {
        let text = match self {
            Self::At(zoned) => jiff::fmt::strtime::format(format, zoned),
            Self::Date(date) => jiff::fmt::strtime::format(format, *date),
            Self::Local(local) => jiff::fmt::strtime::format(format, *local),
        };
        text.map_err(|e| format!("bad date format `{}`: {e}", short(format)))
    }
}

fn zone_of(offset: Offset) -> TimeZone {
    if offset == Offset::UTC { TimeZone::UTC } else { TimeZone::fixed(offset) }
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
