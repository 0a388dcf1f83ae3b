//! One field of a cron pattern, read as croniter reads it.

use std::collections::{BTreeMap, BTreeSet};

use super::cron::{DAY, DOW, HOUR, MINUTE, MONTH, SECOND, YEAR};
use super::error::shown;

/// Lowest and highest value of each field.
const RANGES: [(u32, u32); 7] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6), (0, 59), (1970, 2099)];
/// So many values are all of them.
const ALL: [usize; 7] = [60, 24, 31, 12, 7, 60, 130];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Which of a weekday's days within a month.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Nth {
    /// `2#3`: from 1 to 5.
    Number(u32),
    /// `L5`.
    Last,
}

/// The values of one field.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Field {
    pub(super) values: BTreeSet<u32>,
    /// `*` is among them.
    pub(super) any: bool,
    /// The last day of the month is among them.
    pub(super) last: bool,
}

impl Field {
    /// `*` and nothing else.
    pub(super) fn is_star(&self) -> bool {
        self.any && self.values.is_empty() && !self.last
    }

    pub(super) fn has(&self, value: u32) -> bool {
        self.any || self.values.contains(&value)
    }
}

/// What the day fields add beside their values.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Specials {
    /// By weekday, Sunday is 0.
    pub(super) nth: BTreeMap<u32, BTreeSet<Nth>>,
    /// `15W`.
    pub(super) nearest_weekday: Option<u32>,
}

/// A token of a list that is still to be read.
enum Token {
    Text(String),
    /// From a range: a value, and which of a weekday's days.
    Value(u32, Option<Nth>),
}

/// Reads the field at `index` of `texts` (lower case).
pub(super) fn read(index: usize, texts: &[&str], specials: &mut Specials) -> Result<Field, String> {
    let text = texts[index];
    if is_hashed(text) {
        return Err(match text.starts_with('h') {
            true => "a hashed value (H) needs an id, and Airflow gives none".to_owned(),
            false => "a random value (R) is another one at each reading".to_owned(),
        });
    }
    let text = match text {
        "?" if index == DAY || index == DOW => "*",
        text if text.contains('?') => {
            return Err("`?` may only stand alone, for a day".to_owned());
        }
        text => text,
    };
    let mut field = Field::default();
    let mut tokens: Vec<Token> = text.split(',').map(|t| Token::Text(t.to_owned())).collect();
    // From the last to the first, a range's values in the place of the range: `15W` must be alone.
    while let Some(token) = tokens.pop() {
        let (value, nth) = match token {
            Token::Value(value, nth) => (value, nth),
            Token::Text(token) => {
                let (token, nth) = if index == DOW { nth_of(&token)? } else { (token, None) };
                if index == DAY
                    && let Some(day) = nearest_weekday(&token)
                {
                    if !(1..=31).contains(&day) {
                        return Err(format!("{day}W is not a day of a month"));
                    }
                    let alone = tokens.is_empty() && field == Field::default();
                    if !alone || specials.nearest_weekday.is_some() {
                        return Err("`W` stands with a single day, not in a list".to_owned());
                    }
                    specials.nearest_weekday = Some(day);
                    field.values.insert(day);
                    continue;
                }
                if let Some(range) = range(index, &token)? {
                    let nth = nth.filter(|nth| *nth != Nth::Last);
                    tokens.extend(range.into_iter().map(|value| Token::Value(value, nth)));
                    continue;
                }
                if token == "*" {
                    field.any = true;
                    continue;
                }
                if token == "l" && index == DAY {
                    field.last = true;
                    continue;
                }
                (single(index, &token)?, nth)
            }
        };
        let value = if index == DOW && value == 7 { 0 } else { value };
        let (low, high) = RANGES[index];
        if !(low..=high).contains(&value) {
            return Err(format!("{value} is out of range: values are {low} to {high}"));
        }
        field.values.insert(value);
        if let Some(nth) = nth {
            specials.nth.entry(value).or_default().insert(nth);
        }
    }
    let others = usize::from(field.any) + usize::from(field.last);
    if field.values.len() + others == ALL[index] {
        // With both days given, either suffices: all days of one then are not the same as `*`,
        // unless the other one's text has a star.
        let keeps_list = (index == DAY && !texts[DOW].contains('*'))
            || (index == DOW && !texts[DAY].contains('*'));
        if !keeps_list {
            return Ok(Field { any: true, ..Field::default() });
        }
    }
    Ok(field)
}

/// `h`, `r`, `h(1-5)`, `h/3`, `h(1-5)/3`.
fn is_hashed(text: &str) -> bool {
    let Some(mut rest) = text.strip_prefix(['h', 'r']) else { return false };
    if let Some(inside) = rest.strip_prefix('(') {
        let Some((range, after)) = inside.split_once(')') else { return false };
        let Some((from, to)) = range.split_once('-') else { return false };
        if !is_digits(from) || !is_digits(to) {
            return false;
        }
        rest = after;
    }
    rest.is_empty() || rest.strip_prefix('/').is_some_and(is_digits)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// A number; one that is too long is out of every range.
fn number(digits: &str) -> u32 {
    digits.parse().unwrap_or(u32::MAX)
}

/// Takes `fri#2`, `mon-fri#2` and `l5` apart.
fn nth_of(token: &str) -> Result<(String, Option<Nth>), String> {
    if let Some(day) = token.strip_prefix('l').filter(|day| is_digits(day)) {
        return Ok((day.to_owned(), Some(Nth::Last)));
    }
    let Some((days, which)) = token.split_once('#') else { return Ok((token.to_owned(), None)) };
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let names = |text: &str| WEEKDAYS.contains(&text) || MONTHS.contains(&text);
    let range_of_names = days.split_once('-').is_some_and(|(a, b)| names(a) && names(b));
    if !is_digits(which) || !(word(days) || range_of_names) {
        return Err(format!("{} is not a weekday", shown(token)));
    }
    match number(which) {
        n @ 1..=5 => Ok((days.to_owned(), Some(Nth::Number(n)))),
        _ => Err(format!("{}: a month has a weekday 1 to 5 times", shown(token))),
    }
}

/// `15w` or `w15`.
fn nearest_weekday(token: &str) -> Option<u32> {
    let day = token.strip_suffix('w').or_else(|| token.strip_prefix('w'))?;
    is_digits(day).then(|| number(day))
}

/// The values of `a-b`, `a-b/n`, `*/n` and `a/n`; nothing when it is none of them.
fn range(index: usize, token: &str) -> Result<Option<Vec<u32>>, String> {
    let (min, max) = RANGES[index];
    let (bounds, step) = match token.rsplit_once('/') {
        Some((bounds, step)) if is_digits(step) => (bounds, Some(number(step))),
        Some(_) => return Err(format!("{} is not a step", shown(token))),
        None => (token, None),
    };
    let (low, high, from_start) = match (bounds.split_once('-'), step) {
        (Some((low, high)), _) => (low.to_owned(), high.to_owned(), false),
        (None, None) => return Ok(None),
        (None, Some(_)) if bounds == "*" => (min.to_string(), max.to_string(), false),
        (None, Some(_)) => (bounds.to_owned(), max.to_string(), true),
    };
    let high = if index == DAY && high == "l" { "31".to_owned() } else { high };
    let low = alias(index, single(index, &low)?);
    let high = alias(index, single(index, &high)?);
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(format!("{}: a step is at least 1", shown(token)));
    }
    if low.max(high) > max {
        return Err(format!("{} is out of range: values are {min} to {max}", shown(token)));
    }
    if low == high {
        // `59/15` is 59; `5-5` is the whole cycle.
        return Ok(Some(match from_start {
            true => vec![low],
            false => (min..=max).step_by(step as usize).collect(),
        }));
    }
    if low < high {
        return Ok(Some((low..=high).step_by(step as usize).collect()));
    }
    // `sat-mon`, `nov-feb`: around the end of the field.
    let mut values: Vec<u32> = (low..=max).step_by(step as usize).collect();
    let newest = values.last().copied().unwrap_or(low);
    let left = max - newest;
    let wraps = newest - min + step > max - min + 1;
    let skipped = if wraps && left < step { step - left } else { 0 };
    values.extend((min.saturating_add(skipped)..=high).step_by(step as usize));
    Ok(Some(values))
}

fn alias(index: usize, value: u32) -> u32 {
    if index == DOW && value == 7 { 0 } else { value }
}

/// A number, or a name where the field has names.
fn single(index: usize, token: &str) -> Result<u32, String> {
    if is_digits(token) {
        return Ok(number(token));
    }
    let named = |names: &[&str], first: u32| {
        names.iter().position(|name| *name == token).map(|at| at as u32 + first)
    };
    let value = match index {
        MONTH => named(&MONTHS, 1),
        DOW => named(&WEEKDAYS, 0),
        MINUTE | HOUR | DAY | SECOND | YEAR => None,
        _ => None,
    };
    value.ok_or_else(|| match token.is_empty() {
        true => "a value is missing".to_owned(),
        false => format!("{} is not a value", shown(token)),
    })
}
