//! Lists: filters, order and pages, the same for every kind of thing.

use std::cmp::Ordering;

use kobza_model::{Json, Timestamp};
use serde_json::json;

use super::answer::{Call, Reply, RestError};

/// Items of a page if the caller does not say, and the most there may be (Airflow's own settings).
const LIMIT: u64 = 50;
pub(crate) const LIMIT_MAX: u64 = 100;
const SORTS_MAX: usize = 10;

/// A query's parameters, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    pub(crate) fn parse(text: &str) -> Self {
        let uri = axum::http::Uri::builder().path_and_query(format!("/?{text}")).build();
        let pairs = uri.ok().and_then(|uri| {
            axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).ok().map(|q| q.0)
        });
        Self(pairs.unwrap_or_default())
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.pairs().filter(move |(own, _)| *own == name).map(|(_, value)| value)
    }

    pub(crate) fn one(&self, name: &str) -> Option<&str> {
        self.pairs().filter(|(own, _)| *own == name).map(|(_, value)| value).last()
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, RestError> {
        let wrong = |_| RestError::field(&["query", name], "Input should be a valid integer");
        self.one(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    fn natural(&self, name: &str) -> Result<Option<u64>, RestError> {
        let small =
            || RestError::field(&["query", name], "Input should be greater than or equal to 0");
        self.number(name)?.map(|n| u64::try_from(n).map_err(|_| small())).transpose()
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, RestError> {
        match self.one(name).map(str::to_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes" | "on" | "t" | "y") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off" | "f" | "n") => Ok(Some(false)),
            Some(_) => Err(RestError::field(&["query", name], "Input should be a valid boolean")),
        }
    }

    pub(crate) fn instant(&self, name: &str) -> Result<Option<Timestamp>, RestError> {
        self.one(name).map(|text| instant(&["query", name], text)).transpose()
    }
}

/// An instant as clients write it; without an offset it is UTC.
pub(crate) fn instant(place: &[&str], text: &str) -> Result<Timestamp, RestError> {
    let wrong = || RestError::field(place, "Input should be a valid datetime");
    let text = text.trim();
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let date: jiff::civil::DateTime = text.parse().map_err(|_| wrong())?;
    let at = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?;
    Ok(Timestamp::from_jiff(at.timestamp()))
}

/// A filter over items, by one of their fields.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    /// `{stem}_pattern` (part of the text, in any case; `|` is or) and `{stem}_prefix_pattern`.
    Text(&'static str, &'static str),
    /// Equal to one of the values that are given; `none` is null.
    Any(&'static str, &'static str),
    /// As the flag says.
    Flag(&'static str, &'static str),
    /// `{stem}_gte`, `_gt`, `_lte`, `_lt` over instants.
    Time(&'static str, &'static str),
    /// The same over numbers.
    Number(&'static str, &'static str),
    /// Part of the field as JSON text.
    Contains(&'static str, &'static str),
}

/// What an item must be like.
type Test = Box<dyn Fn(&Json) -> bool>;

/// How a list is made.
pub(crate) struct Listing {
    /// The field of the answer that holds the items.
    pub(crate) key: &'static str,
    pub(crate) filters: &'static [Filter],
    /// What it may be ordered by, and the items' field for it. The first is the usual order.
    pub(crate) order: &'static [(&'static str, &'static str)],
}

fn field<'a>(item: &'a Json, path: &str) -> &'a Json {
    path.split('/').fold(item, |value, name| &value[name])
}

fn seconds(value: &Json) -> Option<f64> {
    value.as_f64()
}

impl Filter {
    /// What an item must be like, if the query says anything of it.
    fn test(self, query: &Query) -> Result<Option<Test>, RestError> {
        Ok(match self {
            Self::Text(stem, path) => {
                let part = query.one(&format!("{stem}_pattern")).map(str::to_lowercase);
                let prefix = query.one(&format!("{stem}_prefix_pattern")).map(str::to_owned);
                if part.is_none() && prefix.is_none() {
                    return Ok(None);
                }
                Some(Box::new(move |item| {
                    let text = field(item, path).as_str().unwrap_or_default();
                    let has = |part: &String| part == "~" || like(&text.to_lowercase(), part);
                    part.as_ref().is_none_or(has)
                        && prefix.as_ref().is_none_or(|prefix| {
                            any_of(prefix, |prefix| text.starts_with(prefix.trim_end_matches('%')))
                        })
                }))
            }
            Self::Any(name, path) => {
                let wanted: Vec<String> = query.all(name).map(str::to_owned).collect();
                if wanted.is_empty() {
                    return Ok(None);
                }
                Some(Box::new(move |item| {
                    let value = field(item, path);
                    wanted.iter().any(|wanted| match value {
                        Json::String(text) => text == wanted,
                        Json::Null => matches!(wanted.as_str(), "none" | "null" | "no_status"),
                        Json::Array(items) => items.iter().any(|one| one == wanted.as_str()),
                        Json::Number(number) => number.to_string() == *wanted,
                        Json::Bool(is) => is.to_string() == *wanted,
                        Json::Object(_) => false,
                    })
                }))
            }
            Self::Flag(name, path) => {
                let Some(wanted) = query.flag(name)? else { return Ok(None) };
                Some(Box::new(move |item| field(item, path) == &Json::Bool(wanted)))
            }
            Self::Time(stem, path) => {
                let bound = |end: &str| query.instant(&format!("{stem}_{end}"));
                let (gte, gt, lte, lt) = (bound("gte")?, bound("gt")?, bound("lte")?, bound("lt")?);
                if [gte, gt, lte, lt].iter().all(Option::is_none) {
                    return Ok(None);
                }
                Some(Box::new(move |item| {
                    let at = field(item, path).as_str().and_then(|t| t.parse::<Timestamp>().ok());
                    at.is_some_and(|at| {
                        gte.is_none_or(|b| at >= b)
                            && gt.is_none_or(|b| at > b)
                            && lte.is_none_or(|b| at <= b)
                            && lt.is_none_or(|b| at < b)
                    })
                }))
            }
            Self::Number(stem, path) => {
                let bound = |end: &str| -> Result<Option<f64>, RestError> {
                    let name = format!("{stem}_{end}");
                    let wrong =
                        |_| RestError::field(&["query", &name], "Input should be a valid number");
                    query.one(&name).map(|text| text.parse().map_err(wrong)).transpose()
                };
                let (gte, gt, lte, lt) = (bound("gte")?, bound("gt")?, bound("lte")?, bound("lt")?);
                if [gte, gt, lte, lt].iter().all(Option::is_none) {
                    return Ok(None);
                }
                Some(Box::new(move |item| {
                    seconds(field(item, path)).is_some_and(|n| {
                        gte.is_none_or(|b| n >= b)
                            && gt.is_none_or(|b| n > b)
                            && lte.is_none_or(|b| n <= b)
                            && lt.is_none_or(|b| n < b)
                    })
                }))
            }
            Self::Contains(name, path) => {
                let Some(part) = query.one(name).map(str::to_lowercase) else { return Ok(None) };
                Some(Box::new(move |item| {
                    let text = match field(item, path) {
                        Json::String(text) => text.clone(),
                        other => other.to_string(),
                    };
                    text.to_lowercase().contains(&part)
                }))
            }
        })
    }
}

fn any_of(text: &str, test: impl Fn(&str) -> bool) -> bool {
    text.split('|').map(str::trim).filter(|part| !part.is_empty()).any(test)
}

/// SQL's `LIKE '%part%'`: `%` is any text, `_` any character. Both are in lower case.
fn like(text: &str, part: &str) -> bool {
    fn fits(text: &[char], pattern: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('%', rest)) => (0..=text.len()).any(|from| fits(&text[from..], rest)),
            Some(('_', rest)) => !text.is_empty() && fits(&text[1..], rest),
            Some((one, rest)) => text.first() == Some(one) && fits(&text[1..], rest),
        }
    }
    any_of(part, |part| {
        if !part.contains(['%', '_']) {
            return text.contains(part);
        }
        // Long patterns of many wildcards would take for ever.
        let pattern = format!("%{}%", part.trim_matches('%'));
        if pattern.matches('%').count() > 6 {
            return false;
        }
        let (text, pattern): (Vec<char>, Vec<char>) =
            (text.chars().collect(), pattern.chars().collect());
        fits(&text, &pattern)
    })
}

fn compare(a: &Json, b: &Json) -> Ordering {
    match (a, b) {
        (Json::Null, Json::Null) => Ordering::Equal,
        (Json::Null, _) => Ordering::Less,
        (_, Json::Null) => Ordering::Greater,
        (Json::Number(a), Json::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            a.partial_cmp(&b).unwrap_or(Ordering::Equal)
        }
        // Instants are written alike, so that their order is that of their texts.
        (Json::String(a), Json::String(b)) => a.cmp(b),
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

impl Listing {
    /// Keeps what the query asks for.
    pub(crate) fn keep<T>(
        &self,
        query: &Query,
        items: &mut Vec<(Json, T)>,
    ) -> Result<(), RestError> {
        for filter in self.filters {
            if let Some(test) = filter.test(query)? {
                items.retain(|(item, _)| test(item));
            }
        }
        Ok(())
    }

    fn sort<T>(&self, query: &Query, items: &mut [(Json, T)]) -> Result<(), RestError> {
        let asked: Vec<&str> = query.all("order_by").filter(|text| !text.is_empty()).collect();
        if asked.len() > SORTS_MAX {
            return Err(RestError::bad(format!(
                "Ordering with more than {SORTS_MAX} parameters is not allowed. Provided: {asked:?}"
            )));
        }
        let usual = self.order.first().map(|(_, path)| (*path, false));
        let mut keys: Vec<(&str, bool)> = Vec::new();
        for text in asked {
            let name = text.trim_start_matches('-');
            let known = self.order.iter().find(|(own, _)| *own == name).ok_or_else(|| {
                RestError::bad(format!(
                    "Ordering with '{name}' is disallowed or the attribute does not exist on the model"
                ))
            })?;
            keys.push((known.1, text.starts_with('-')));
        }
        if let Some((path, _)) = usual {
            // What is equal keeps one order, in the first key's direction.
            let down = keys.first().is_some_and(|(_, down)| *down);
            keys.push((path, down));
        }
        items.sort_by(|(a, _), (b, _)| {
            keys.iter().fold(Ordering::Equal, |found, (path, down)| {
                found.then_with(|| {
                    let order = compare(field(a, path), field(b, path));
                    if *down { order.reverse() } else { order }
                })
            })
        });
        Ok(())
    }

    /// The page that the query asks for. `finish` completes the items that are on it.
    pub(crate) fn page<T>(
        &self,
        call: &Call,
        items: Vec<(Json, T)>,
        finish: impl FnMut(Json, T) -> Result<Json, RestError>,
    ) -> Result<Reply, RestError> {
        Reply::ok(self.cut(&call.query, items, finish)?)
    }

    pub(crate) fn cut<T>(
        &self,
        query: &Query,
        mut items: Vec<(Json, T)>,
        mut finish: impl FnMut(Json, T) -> Result<Json, RestError>,
    ) -> Result<Json, RestError> {
        self.keep(query, &mut items)?;
        self.sort(query, &mut items)?;
        let total = items.len();
        let limit = match query.natural("limit")? {
            None | Some(0) => LIMIT,
            Some(limit) => limit.min(LIMIT_MAX),
        };
        let cursor = match query.one("cursor") {
            Some("") => Some(0),
            Some(text) => {
                let wrong = || RestError::bad("Invalid cursor");
                Some(text.strip_prefix("at-").and_then(|n| n.parse().ok()).ok_or_else(wrong)?)
            }
            None => None,
        };
        let offset = cursor.unwrap_or(query.natural("offset")?.unwrap_or(0));
        let (from, count) = (
            usize::try_from(offset).unwrap_or(usize::MAX),
            usize::try_from(limit).unwrap_or(usize::MAX),
        );
        let mut shown = Vec::new();
        for (item, own) in items.into_iter().skip(from).take(count) {
            shown.push(visible(finish(item, own)?));
        }
        let mut body = json!({self.key: shown, "total_entries": total});
        if cursor.is_some() {
            let at = |n: u64| json!(format!("at-{n}"));
            let more = offset.saturating_add(limit) < total as u64;
            body["next_cursor"] = if more { at(offset + limit) } else { Json::Null };
            body["previous_cursor"] =
                if offset > 0 { at(offset.saturating_sub(limit)) } else { Json::Null };
        }
        Ok(body)
    }

    /// All items that the query asks for, in its order.
    pub(crate) fn whole(
        &self,
        query: &Query,
        mut items: Vec<(Json, ())>,
    ) -> Result<Json, RestError> {
        self.keep(query, &mut items)?;
        self.sort(query, &mut items)?;
        let total = items.len();
        let shown: Vec<Json> = items.into_iter().map(|(item, ())| visible(item)).collect();
        Ok(json!({self.key: shown, "total_entries": total}))
    }

    /// A page of items that are complete.
    pub(crate) fn simple(&self, call: &Call, items: Vec<Json>) -> Result<Reply, RestError> {
        let items = items.into_iter().map(|item| (item, ())).collect();
        self.page(call, items, |item, ()| Ok(item))
    }
}

/// An item without what serves its order only.
pub(crate) fn visible(mut item: Json) -> Json {
    if let Json::Object(fields) = &mut item {
        fields.retain(|name, _| !name.starts_with('_'));
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing = Listing {
        key: "things",
        filters: &[
            Filter::Text("name", "name"),
            Filter::Any("state", "state"),
            Filter::Time("at", "at"),
            Filter::Number("size", "size"),
            Filter::Flag("good", "good"),
        ],
        order: &[("name", "name"), ("size", "size")],
    };

    fn names(query: &str) -> Result<String, RestError> {
        let items = [
            json!({"name": "Apple", "state": "ripe", "at": "2026-01-01T00:00:00.000000Z", "size": 3, "good": true}),
            json!({"name": "banana_one", "state": null, "at": "2026-01-02T00:00:00.000000Z", "size": 10, "good": false}),
            json!({"name": "cherry", "state": "raw", "at": null, "size": 1.5, "good": true}),
        ];
        let items = items.into_iter().map(|item| (item, ())).collect();
        let body = LISTING.cut(&Query::parse(query), items, |item, ()| Ok(item))?;
        let name = |item: &Json| item["name"].as_str().unwrap().to_owned();
        Ok(body["things"].as_array().unwrap().iter().map(name).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn filters_order_and_pages() {
        assert_eq!(names("").unwrap(), "Apple banana_one cherry");
        assert_eq!(names("order_by=-size").unwrap(), "banana_one Apple cherry");
        assert_eq!(names("order_by=-size&limit=1&offset=1").unwrap(), "Apple");
        assert_eq!(names("name_pattern=AP").unwrap(), "Apple");
        assert_eq!(names("name_pattern=ap|erry").unwrap(), "Apple cherry");
        assert_eq!(names("name_pattern=b%25one").unwrap(), "banana_one");
        assert_eq!(names("name_prefix_pattern=ba").unwrap(), "banana_one");
        assert_eq!(names("state=ripe&state=none").unwrap(), "Apple banana_one");
        assert_eq!(names("at_gte=2026-01-02T00:00:00%2B00:00").unwrap(), "banana_one");
        assert_eq!(names("at_lt=2026-01-02").unwrap(), "Apple");
        assert_eq!(names("size_gt=1.5&good=true").unwrap(), "Apple");
        assert_eq!(names("order_by=colour").unwrap_err().status, 400);
        assert_eq!(names("limit=-1").unwrap_err().status, 422);
        assert_eq!(names("at_gte=tomorrow").unwrap_err().status, 422);
        assert_eq!(names("good=maybe").unwrap_err().status, 422);
    }
}
