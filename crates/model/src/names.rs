//! What a name may look like. Names end up in paths, URLs and logs of many systems, so the rule is
//! made once, here, and is strict.

/// Longest name accepted, in characters. Other systems allow 250 or less.
pub const MAX_NAME_CHARS: usize = 500;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name must not be empty")]
    Empty,
    #[error("a name has at most {MAX_NAME_CHARS} characters; this one has {0}")]
    TooLong(usize),
    #[error("a name must not contain {0:?}")]
    Character(char),
    #[error("a name must not contain `..`")]
    DotDot,
    #[error("a name must not begin or end with white space, nor be `.`")]
    Shape,
}

/// Checks the name of a workflow, task, pool, connection and the like.
pub fn validate_name(name: &str) -> Result<(), NameError> {
    validate(name, |c| c == '/' || c == '\\')
}

/// Checks the name of an asset, in which `/` separates levels.
pub fn validate_asset(name: &str) -> Result<(), NameError> {
    if name.starts_with('/') || name.ends_with('/') {
        return Err(NameError::Shape);
    }
    validate(name, |c| c == '\\')
}

/// Checks the key of a partition, in which `/` and `|` may separate dimensions.
pub fn validate_partition(key: &str) -> Result<(), NameError> {
    validate(key, |_| false)
}

/// Characters that nobody sees, and that make a name look like another or break a line.
fn invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn validate(name: &str, refused: impl Fn(char) -> bool) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let chars = name.chars().count();
    if chars > MAX_NAME_CHARS {
        return Err(NameError::TooLong(chars));
    }
    if let Some(c) = name.chars().find(|&c| invisible(c) || refused(c)) {
        return Err(NameError::Character(c));
    }
    if name.contains("..") {
        return Err(NameError::DotDot);
    }
    if name == "." || name.trim() != name {
        return Err(NameError::Shape);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "load orders", "заказы", "x.y", "🚀", &"n".repeat(500)] {
            assert_eq!(validate_name(good), Ok(()), "{good}");
        }
        let long = "n".repeat(10_000);
        for bad in
            ["", "a/b", "a\\b", "..", "a..b", ".", "a\0b", "a\nb", " a", "a ", "\u{202e}a", &long]
        {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(validate_partition("2013-01-01|eu/west"), Ok(()));
        for bad in ["", "..", "a\0b", "a\nb", &long] {
            assert!(validate_partition(bad).is_err(), "{bad:?}");
        }
        assert_eq!(validate_asset("warehouse/orders"), Ok(()));
        for bad in ["/etc", "a/../b", "a/", "a\\b"] {
            assert!(validate_asset(bad).is_err(), "{bad:?}");
        }
    }
}
