//! Reading, once for both databases: queries in the SQL that they share, over cells.
//!
//! A database gives [`Queries`] (one statement, rows as cells) and [`Reads`] (a connection with one
//! instant's view of the data); everything else is here.

mod assets;
mod cursor;
mod events;
mod load;
mod objects;
mod runs;
mod tasks;
mod views;
mod workflows;

use kobza_model::{RunId, TaskNo, Timestamp};

pub(crate) use load::{
    active_runs, fence, flags, limits, object, outputs, run_by_key, run_image, workflow,
};

use crate::StoreError;

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// A value as a database keeps it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<RunId> for Value {
    fn from(run: RunId) -> Self {
        Self::Blob(run.0.as_bytes().to_vec())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Int(flag.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(bytes)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// What is done with each row of an answer.
pub(crate) type EachRow<'a> = &'a mut dyn FnMut(&mut Cells) -> Result<()>;

/// Runs statements. Placeholders are `?1`, `?2`, ...
pub(crate) trait Queries {
    /// Calls `row` for each row of the answer. The statement stays prepared.
    fn each(&mut self, sql: &str, values: &[Value], row: EachRow<'_>) -> Result<()>;

    /// As `each`, for a statement whose text will hardly come again.
    fn each_once(&mut self, sql: &str, values: &[Value], row: EachRow<'_>) -> Result<()>;
}

/// Runs statements that change something, inside a transaction.
pub(crate) trait Statements: Queries {
    /// How many rows it changed.
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64>;
}

/// Something that can be read.
pub(crate) trait Reads: Send + Sync {
    /// Calls `read` with the data of one instant.
    fn read(&self, read: &mut dyn FnMut(&mut dyn Queries) -> Result<()>) -> Result<()>;
}

/// Reads, and hands out what `read` answers.
pub(crate) fn with<T>(
    store: &(impl Reads + ?Sized),
    mut read: impl FnMut(&mut dyn Queries) -> Result<T>,
) -> Result<T> {
    let mut answer = None;
    store.read(&mut |queries| {
        answer = Some(read(queries)?);
        Ok(())
    })?;
    answer.ok_or_else(|| StoreError("a reader did not read".into()))
}

/// All rows of an answer.
pub(crate) fn all<T>(
    queries: &mut dyn Queries,
    sql: &str,
    values: &[Value],
    mut map: impl FnMut(&mut Cells) -> Result<T>,
) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    queries.each(sql, values, &mut |cells| {
        rows.push(map(cells)?);
        Ok(())
    })?;
    Ok(rows)
}

/// The first row of an answer.
pub(crate) fn first<T>(
    queries: &mut dyn Queries,
    sql: &str,
    values: &[Value],
    map: impl FnMut(&mut Cells) -> Result<T>,
) -> Result<Option<T>> {
    Ok(all(queries, sql, values, map)?.into_iter().next())
}

/// A row. Places count from 0.
#[derive(Default)]
pub(crate) struct Cells(pub(crate) Vec<Value>);

impl Cells {
    fn wrong(&self, place: usize, wanted: &str) -> StoreError {
        StoreError(format!("column {place} should be {wanted}, is {:?}", self.0.get(place)))
    }

    pub(crate) fn opt_int(&self, place: usize) -> Result<Option<i64>> {
        match self.0.get(place) {
            Some(Value::Int(number)) => Ok(Some(*number)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.wrong(place, "a number")),
        }
    }

    pub(crate) fn int(&self, place: usize) -> Result<i64> {
        self.opt_int(place)?.ok_or_else(|| self.wrong(place, "a number"))
    }

    /// A number of a narrower type.
    pub(crate) fn number<T: TryFrom<i64>>(&self, place: usize) -> Result<T> {
        T::try_from(self.int(place)?).map_err(|_| self.wrong(place, "in range"))
    }

    pub(crate) fn opt_number<T: TryFrom<i64>>(&self, place: usize) -> Result<Option<T>> {
        let narrow = |number| T::try_from(number).map_err(|_| self.wrong(place, "in range"));
        self.opt_int(place)?.map(narrow).transpose()
    }

    pub(crate) fn flag(&self, place: usize) -> Result<bool> {
        Ok(self.int(place)? != 0)
    }

    pub(crate) fn time(&self, place: usize) -> Result<Timestamp> {
        self.int(place).map(Timestamp)
    }

    pub(crate) fn opt_time(&self, place: usize) -> Result<Option<Timestamp>> {
        Ok(self.opt_int(place)?.map(Timestamp))
    }

    pub(crate) fn opt_str(&self, place: usize) -> Result<Option<&str>> {
        match self.0.get(place) {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.wrong(place, "text")),
        }
    }

    pub(crate) fn str(&self, place: usize) -> Result<&str> {
        self.opt_str(place)?.ok_or_else(|| self.wrong(place, "text"))
    }

    /// Moves a text out.
    pub(crate) fn text(&mut self, place: usize) -> Result<String> {
        self.opt_text(place)?.ok_or_else(|| StoreError(format!("column {place} is null")))
    }

    pub(crate) fn opt_text(&mut self, place: usize) -> Result<Option<String>> {
        match self.0.get_mut(place).map(|value| std::mem::replace(value, Value::Null)) {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            other => Err(StoreError(format!("column {place} should be text, is {other:?}"))),
        }
    }

    pub(crate) fn opt_blob(&self, place: usize) -> Result<Option<&[u8]>> {
        match self.0.get(place) {
            Some(Value::Blob(bytes)) => Ok(Some(bytes)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.wrong(place, "bytes")),
        }
    }

    pub(crate) fn blob(&self, place: usize) -> Result<&[u8]> {
        self.opt_blob(place)?.ok_or_else(|| self.wrong(place, "bytes"))
    }

    pub(crate) fn opt_run(&self, place: usize) -> Result<Option<RunId>> {
        self.opt_blob(place)?
            .map(|bytes| uuid::Uuid::from_slice(bytes).map(RunId))
            .transpose()
            .map_err(|_| self.wrong(place, "a run's id"))
    }

    pub(crate) fn run(&self, place: usize) -> Result<RunId> {
        self.opt_run(place)?.ok_or_else(|| self.wrong(place, "a run's id"))
    }

    pub(crate) fn opt_task(&self, place: usize) -> Result<Option<TaskNo>> {
        Ok(self.opt_number(place)?.map(TaskNo))
    }
}

/// Builds a condition with its values.
#[derive(Default)]
pub(crate) struct Conditions {
    parts: Vec<String>,
    pub(crate) values: Vec<Value>,
}

impl Conditions {
    /// Adds a condition whose one `?` stands for `value`.
    pub(crate) fn with(&mut self, condition: &str, value: impl Into<Value>) -> &mut Self {
        let place = format!("?{}", self.values.len() + 1);
        self.numbered(&condition.replace('?', &place), value)
    }

    /// Adds a condition that names its place, the next one, itself.
    pub(crate) fn numbered(&mut self, condition: &str, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self.parts.push(condition.to_owned());
        self
    }

    /// Adds a condition without a value.
    pub(crate) fn plain(&mut self, condition: impl Into<String>) -> &mut Self {
        self.parts.push(condition.into());
        self
    }

    /// `column IN (texts)`; nothing when there are none.
    pub(crate) fn one_of(&mut self, column: &str, texts: &[String]) -> &mut Self {
        if !texts.is_empty() {
            let mut places = Vec::new();
            for text in texts {
                self.values.push(Value::Text(text.clone()));
                places.push(format!("?{}", self.values.len()));
            }
            self.parts.push(format!("{column} IN ({})", places.join(", ")));
        }
        self
    }

    /// `column IN (numbers)`; nothing when there are none.
    pub(crate) fn one_of_numbers(
        &mut self,
        column: &str,
        numbers: impl IntoIterator<Item = i64>,
    ) -> &mut Self {
        let list: Vec<_> = numbers.into_iter().map(|n| n.to_string()).collect();
        if !list.is_empty() {
            self.parts.push(format!("{column} IN ({})", list.join(", ")));
        }
        self
    }

    /// `column` contains `part`, upper and lower case alike.
    pub(crate) fn contains(&mut self, column: &str, part: &str) -> &mut Self {
        let escaped = part.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let pattern = format!("%{escaped}%");
        self.with(&format!("lower({column}) LIKE lower(?) ESCAPE '\\'"), pattern.as_str())
    }

    /// `WHERE ...`, or nothing.
    pub(crate) fn clause(&self) -> String {
        if self.parts.is_empty() {
            String::new()
        } else {
            format!("WHERE {}", self.parts.join(" AND "))
        }
    }
}

/// The page size that a caller gets.
pub(crate) fn page_size(limit: u32) -> usize {
    limit.clamp(1, crate::MAX_PAGE) as usize
}
