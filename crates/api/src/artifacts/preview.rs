//! A look into an artifact: its beginning, read as what it says it is.

use std::io::Read;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::found::{Body, Found, Kind};

/// Bytes of a file that are looked at.
pub(crate) const LOOKED: u64 = 512 * 1024;
/// Rows and columns of a table that are shown.
const ROWS: usize = 200;
const COLUMNS: usize = 200;
/// Points of a plot that are shown.
const POINTS: usize = 5000;

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PreviewColumn")]
pub(crate) struct Column {
    name: String,
    /// As the data's own library calls it.
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PreviewSeries")]
pub(crate) struct Series {
    name: String,
    values: Vec<Option<f64>>,
}

/// One or several series over the same places.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PreviewPlot")]
pub(crate) struct Plot {
    /// `line`, `bar` or `scatter`.
    shape: String,
    /// Numbers, or names.
    x: Vec<Value>,
    series: Vec<Series>,
}

/// A look into an artifact. Which fields are set follows from its kind.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Preview {
    kind: Kind,
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    /// Of the whole table, where that is known.
    total_rows: Option<u64>,
    text: Option<String>,
    value: Value,
    plot: Option<Plot>,
    /// There is more than is shown.
    truncated: bool,
}

impl Preview {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            columns: Vec::new(),
            rows: Vec::new(),
            total_rows: None,
            text: None,
            value: Value::Null,
            plot: None,
            truncated: false,
        }
    }

    fn text(kind: Kind, text: String, truncated: bool) -> Self {
        Self { text: Some(text), truncated, ..Self::new(kind) }
    }
}

/// `None` where there is nothing to show but the file itself. `open` gives its content.
pub(crate) fn preview<R: Read>(
    found: &Found,
    open: impl FnOnce() -> std::io::Result<R>,
) -> std::io::Result<Option<Preview>> {
    let Some(kind) = found.kind else { return Ok(None) };
    let about = match &found.body {
        Body::Note(note) => return Ok(of_note(kind, note)),
        Body::File { about, .. } => about,
    };
    match kind {
        Kind::Table if about["preview"]["columns"].is_array() => {
            return Ok(Some(table(&about["preview"], about["rows"].as_u64(), &about["schema"])));
        }
        Kind::Json if about["shape"].is_array() => {
            let value = json!({
                "shape": about["shape"], "dtype": about["dtype"], "first": about["preview"],
            });
            return Ok(Some(Preview { value, truncated: true, ..Preview::new(kind) }));
        }
        Kind::Image | Kind::Html => return Ok(Some(Preview::new(kind))),
        _ => {}
    }
    let mut bytes = Vec::new();
    open()?.take(LOOKED + 1).read_to_end(&mut bytes)?;
    let truncated = bytes.len() as u64 > LOOKED;
    bytes.truncate(usize::try_from(LOOKED).unwrap_or(usize::MAX));
    Ok(Some(match kind {
        Kind::Table => separated(&bytes, found.media_type == "text/csv", truncated),
        Kind::Json => match serde_json::from_slice(&bytes) {
            Ok(value) if !truncated => Preview { value, ..Preview::new(kind) },
            // Cut, or not what it says it is: its text is shown.
            _ => Preview::text(Kind::Text, lossy(&bytes), truncated),
        },
        _ => Preview::text(kind, lossy(&bytes), truncated),
    }))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn of_note(kind: Kind, note: &Value) -> Option<Preview> {
    Some(match kind {
        Kind::Markdown => {
            let text = note["text"].as_str().unwrap_or_default();
            let cut: String = text.chars().take(LOOKED as usize).collect();
            let truncated = cut.len() < text.len();
            Preview::text(kind, cut, truncated)
        }
        Kind::Table => table(note, note["total"].as_u64(), &Value::Null),
        Kind::Plot => Preview { plot: Some(plot(note)), ..Preview::new(kind) },
        _ => return None,
    })
}

fn table(value: &Value, total: Option<u64>, schema: &Value) -> Preview {
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut columns: Vec<Column> = value["columns"]
        .as_array()
        .into_iter()
        .flatten()
        .take(COLUMNS)
        .enumerate()
        .map(|(place, name)| Column {
            name: text(name),
            kind: schema[place]["type"].as_str().map(str::to_owned),
        })
        .collect();
    let all = value["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<Vec<Value>> = all
        .iter()
        .take(ROWS)
        .map(|row| row.as_array().into_iter().flatten().take(COLUMNS).cloned().collect())
        .collect();
    // Rows without names for their columns are shown by number.
    let widest = rows.iter().map(Vec::len).max().unwrap_or(0);
    for place in columns.len()..widest {
        columns.push(Column { name: (place + 1).to_string(), kind: None });
    }
    let total = total.unwrap_or(all.len() as u64);
    let truncated = total > rows.len() as u64;
    Preview { columns, rows, total_rows: Some(total), truncated, ..Preview::new(Kind::Table) }
}

/// Comma or tab separated text whose first row names the columns.
fn separated(bytes: &[u8], comma: bool, cut: bool) -> Preview {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(if comma { b',' } else { b'\t' })
        .flexible(true)
        .from_reader(bytes);
    let names = reader.byte_headers().cloned().unwrap_or_default();
    let columns = names.iter().take(COLUMNS).map(|name| Column { name: lossy(name), kind: None });
    let columns: Vec<Column> = columns.collect();
    let mut rows = Vec::new();
    let mut more = false;
    let mut record = csv::ByteRecord::new();
    while let Ok(true) = reader.read_byte_record(&mut record) {
        if rows.len() == ROWS {
            more = true;
            break;
        }
        rows.push(record.iter().take(COLUMNS).map(|cell| lossy(cell).into()).collect());
    }
    if cut && !more {
        // The last row may be a part of one.
        rows.pop();
    }
    let truncated = cut || more;
    let total_rows = (!truncated).then_some(rows.len() as u64);
    Preview { columns, rows, total_rows, truncated, ..Preview::new(Kind::Table) }
}

fn plot(note: &Value) -> Plot {
    let number = |v: &Value| v.as_f64().filter(|n| n.is_finite());
    Plot {
        shape: note["plot"].as_str().unwrap_or("line").to_owned(),
        x: note["x"].as_array().into_iter().flatten().take(POINTS).cloned().collect(),
        series: note["series"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, values)| Series {
                name: name.clone(),
                values: values.as_array().into_iter().flatten().take(POINTS).map(number).collect(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::found::found;
    use super::*;

    fn look(media_type: &str, content: &[u8]) -> Preview {
        let about =
            json!({"digest": "ab".repeat(32), "bytes": content.len(), "media_type": media_type});
        let all = found("result", &json!({"$artifact": about}));
        preview(&all[0], || Ok(content)).unwrap().unwrap()
    }

    #[test]
    fn separated_text_is_a_table() {
        let seen = look("text/csv", b"id,name\n1,\"a, b\"\n2\n3,c,d\n");
        assert_eq!(seen.kind, Kind::Table);
        let rows: Vec<usize> = seen.rows.iter().map(Vec::len).collect();
        assert_eq!((rows, seen.total_rows, seen.truncated), (vec![2, 1, 3], Some(3), false));
        assert_eq!(seen.rows[0][1], "a, b");
        let long = format!("n\n{}", "1\n".repeat(400_000));
        let seen = look("text/csv", long.as_bytes());
        assert_eq!((seen.rows.len(), seen.total_rows, seen.truncated), (200, None, true));
    }

    #[test]
    fn what_is_no_json_is_text() {
        assert_eq!(look("application/json", b"{\"a\": 1}").value, json!({"a": 1}));
        let seen = look("application/json", b"{\"a\": \xff");
        assert_eq!((seen.kind, seen.text.as_deref()), (Kind::Text, Some("{\"a\": \u{fffd}")));
    }

    #[test]
    fn a_long_text_is_cut() {
        let seen = look("text/plain", &vec![b'x'; 600 * 1024]);
        assert_eq!((seen.text.unwrap().len() as u64, seen.truncated), (LOOKED, true));
    }

    #[test]
    fn a_frame_shows_what_its_reference_says() {
        let about = json!({"$artifact": {
            "digest": "ab".repeat(32), "bytes": 9, "rows": 1000, "media_type": "application/vnd.apache.parquet",
            "schema": [{"name": "id", "type": "int64"}],
            "preview": {"columns": ["id"], "rows": [[1], [2]]},
        }});
        let seen = preview(&found("r", &about)[0], || -> std::io::Result<&[u8]> {
            panic!("the file is not read")
        });
        let seen = seen.unwrap().unwrap();
        assert_eq!((seen.total_rows, seen.truncated, seen.rows.len()), (Some(1000), true, 2));
        assert_eq!(seen.columns[0].kind.as_deref(), Some("int64"));
    }

    #[test]
    fn a_plot_keeps_its_gaps() {
        let note =
            json!([{"kind": "plot", "plot": "bar", "x": ["a", "b"], "series": {"y": [1, "nan"]}}]);
        let seen = preview(&found("$notes", &note)[0], || Ok(&b""[..])).unwrap().unwrap();
        let plot = seen.plot.unwrap();
        assert_eq!((plot.shape.as_str(), &plot.series[0].values), ("bar", &vec![Some(1.0), None]));
    }
}
