//! Durations and sizes as people write them.

use crate::document::{Located, Tree};

/// Milliseconds of a duration: seconds as a number, or a text such as `1h30m`.
pub(crate) fn parse_duration_ms(value: &Located) -> Option<u64> {
    let micros = match &value.tree {
        Tree::Text(text) => kobza_schedule::parse_duration(text).ok()?,
        Tree::Number(number) => {
            let seconds = number.as_i64().filter(|n| *n > 0)?;
            seconds.checked_mul(1_000_000)?
        }
        _ => return None,
    };
    u64::try_from(micros / 1000).ok().filter(|ms| *ms > 0)
}

/// Bytes of a size: a number, or a text with a unit of powers of 1000 (`MB`) or 1024 (`MiB`).
pub(crate) fn parse_size(value: &Located) -> Option<u64> {
    let text = match &value.tree {
        Tree::Text(text) => text.trim(),
        Tree::Number(number) => return number.as_u64().filter(|n| *n > 0),
        _ => return None,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "K" | "KB" => 1000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        "T" | "TB" => 1_000_000_000_000,
        "Ki" | "KiB" => 1 << 10,
        "Mi" | "MiB" => 1 << 20,
        "Gi" | "GiB" => 1 << 30,
        "Ti" | "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Located {
        Located { tree: Tree::Text(text.to_owned()), line: 1, column: 1 }
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_size(&text("512MiB")), Some(512 << 20));
        assert_eq!(parse_size(&text("1 GB")), Some(1_000_000_000));
        assert_eq!(parse_size(&text("77")), Some(77));
        for bad in ["", "MiB", "-1", "1.5GB", "1XB", "99999999999999999999", "0"] {
            assert_eq!(parse_size(&text(bad)), None, "{bad}");
        }
        assert_eq!(parse_duration_ms(&text("1h30m")), Some(5_400_000));
        assert_eq!(parse_duration_ms(&text("0s")), None);
    }
}
