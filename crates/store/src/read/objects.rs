//! Small keyed objects.

use super::{Cells, Conditions, Queries, Result, all, cursor, first, page_size};
use crate::{ObjectQuery, Page, StoredObject, ViewError, codec};

fn object(cells: &mut Cells) -> Result<StoredObject> {
    Ok(StoredObject {
        value: codec::from_text(cells.str(2)?)?,
        namespace: cells.text(0)?,
        key: cells.text(1)?,
        updated_at: cells.time(3)?,
    })
}

pub(super) fn get(
    queries: &mut dyn Queries,
    kind: &str,
    namespace: &str,
    key: &str,
) -> Result<Option<StoredObject>> {
    let sql = "SELECT namespace, key, value, updated_at FROM object
               WHERE kind = ?1 AND namespace = ?2 AND key = ?3";
    first(queries, sql, &[kind.into(), namespace.into(), key.into()], object)
}

pub(super) fn list(
    queries: &mut dyn Queries,
    query: &ObjectQuery<'_>,
) -> std::result::Result<Page<StoredObject>, ViewError> {
    let after: Option<(String, String)> = cursor::decode("objects", query.cursor)?;
    let size = page_size(query.limit);
    let (sign, order) = if query.descending { ("<", "DESC") } else { (">", "ASC") };
    let mut conditions = Conditions::default();
    if let Some((namespace, key)) = after {
        conditions.values.push(namespace.as_str().into());
        conditions.numbered(&format!("(namespace, key) {sign} (?1, ?2)"), key.as_str());
    }
    conditions.with("kind = ?", query.kind);
    if let Some(namespace) = query.namespace {
        conditions.with("namespace = ?", namespace);
    }
    if !query.prefix.is_empty() {
        conditions.with("key >= ?", query.prefix);
        if let Some(end) = after_prefix(query.prefix) {
            conditions.with("key < ?", end.as_str());
        }
    }
    let sql = format!(
        "SELECT namespace, key, value, updated_at FROM object {}
         ORDER BY namespace {order}, key {order} LIMIT {}",
        conditions.clause(),
        size + 1
    );
    let mut items = all(queries, &sql, &conditions.values, object)?;
    let more = items.len() > size;
    items.truncate(size);
    let last = items.last().filter(|_| more);
    let next = last.and_then(|row| cursor::encode("objects", &(&row.namespace, &row.key)));
    Ok(Page { items, next })
}

/// The first text after all that begin with `prefix`, by code points.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The surrogates are no characters: the one after U+D7FF is U+E000.
        let next =
            if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn a_prefix_ends_before_the_next_text() {
        assert_eq!(after_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(after_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(after_prefix("\u{10ffff}"), None);
    }
}
