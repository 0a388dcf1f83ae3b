//! Reads the log of one launch, finished or growing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::LogLine;
use crate::log_store::segment_path;

/// One entry of the sparse index for so many records: about 100 kB of text.
const INDEX_EVERY: u64 = 1024;
/// Bytes read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Reads by line number or by byte offset. Offsets count over all segments. Only whole records are
/// seen. Keeps a sparse index of what it has read, so keep a reader that is asked often.
#[derive(Debug)]
pub struct LogReader {
    first: PathBuf,
    /// Indexed so far: records and bytes.
    lines: u64,
    indexed: u64,
    /// Offset of each record whose number is a multiple of [`INDEX_EVERY`].
    index: Vec<u64>,
}

/// Some records, and where the next ones begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    pub lines: Vec<LogLine>,
    /// Offset behind the last record of the page.
    pub next: u64,
}

impl LogReader {
    pub(crate) fn new(first: PathBuf) -> Self {
        Self { first, lines: 0, indexed: 0, index: vec![0] }
    }

    /// Bytes of all segments: the cheap way to see whether there is more to read. A log that was
    /// never written has none.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.segments()?.iter().map(|s| s.len).sum())
    }

    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Records from a byte offset on (0, or a `next` from before), until `max_bytes` are read. At
    /// least one record, if there is a whole one.
    pub fn read(&self, offset: u64, max_bytes: usize) -> io::Result<LogPage> {
        let mut page = LogPage { lines: Vec::new(), next: offset };
        let end = offset.saturating_add(max_bytes as u64);
        self.scan(offset, |at, record| {
            if at >= end && !page.lines.is_empty() {
                return false;
            }
            page.lines.push(LogLine::parse(record));
            page.next = at + record.len() as u64 + 1;
            true
        })?;
        Ok(page)
    }

    /// How many records there are now.
    pub fn line_count(&mut self) -> io::Result<u64> {
        self.extend_index()?;
        Ok(self.lines)
    }

    /// Records by number, the first being 0.
    pub fn lines(&mut self, from: u64, limit: usize) -> io::Result<LogPage> {
        self.extend_index()?;
        if from >= self.lines {
            return Ok(LogPage { lines: Vec::new(), next: self.indexed });
        }
        let slot = usize::try_from(from / INDEX_EVERY).unwrap_or(usize::MAX);
        let start = self.index.get(slot).copied().unwrap_or(self.indexed);
        let mut skip = from % INDEX_EVERY;
        let mut page = LogPage { lines: Vec::new(), next: start };
        self.scan(start, |at, record| {
            if page.lines.len() >= limit {
                return false;
            }
            page.next = at + record.len() as u64 + 1;
            if skip > 0 {
                skip -= 1;
            } else {
                page.lines.push(LogLine::parse(record));
            }
            true
        })?;
        Ok(page)
    }

    /// The last records, and where to follow from.
    pub fn tail(&mut self, count: usize) -> io::Result<LogPage> {
        self.extend_index()?;
        self.lines(self.lines.saturating_sub(count as u64), count)
    }

    fn extend_index(&mut self) -> io::Result<()> {
        let (mut lines, mut indexed) = (self.lines, self.indexed);
        let mut index = std::mem::take(&mut self.index);
        let result = self.scan(indexed, |at, record| {
            lines += 1;
            indexed = at + record.len() as u64 + 1;
            if lines.is_multiple_of(INDEX_EVERY) {
                index.push(indexed);
            }
            true
        });
        self.index = index;
        self.lines = lines;
        self.indexed = indexed;
        result
    }

    /// Calls `each` with the offset and the bytes of every whole record until it answers false.
    fn scan(&self, offset: u64, mut each: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
        let mut begin = 0;
        for segment in self.segments()? {
            let end = begin + segment.len;
            if offset < end && !segment.scan(offset.saturating_sub(begin), begin, &mut each)? {
                return Ok(());
            }
            begin = end;
        }
        Ok(())
    }

    fn segments(&self) -> io::Result<Vec<Segment>> {
        let mut segments = Vec::new();
        loop {
            let number = u32::try_from(segments.len()).unwrap_or(u32::MAX);
            let path = segment_path(&self.first, number);
            match fs::metadata(&path) {
                Ok(found) => segments.push(Segment { path, len: found.len() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(segments),
                Err(error) => return Err(error),
            }
        }
    }
}

struct Segment {
    path: PathBuf,
    len: u64,
}

impl Segment {
    fn scan(
        &self,
        mut from: u64,
        begin: u64,
        each: &mut impl FnMut(u64, &[u8]) -> bool,
    ) -> io::Result<bool> {
        let file = File::open(&self.path)?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut held = 0;
        while from + (held as u64) < self.len {
            if held == buffer.len() {
                // A record longer than the buffer: only a damaged file has one.
                buffer.resize(buffer.len() * 2, 0);
            }
            let room = usize::try_from(self.len - from - held as u64).unwrap_or(usize::MAX);
            let until = buffer.len().min(held.saturating_add(room));
            let got = file.read_at(&mut buffer[held..until], from + held as u64)?;
            if got == 0 {
                break;
            }
            let filled = held + got;
            let mut used = 0;
            while let Some(length) = memchr::memchr(b'\n', &buffer[used..filled]) {
                if !each(begin + from + used as u64, &buffer[used..used + length]) {
                    return Ok(false);
                }
                used += length + 1;
            }
            buffer.copy_within(used..filled, 0);
            held = filled - used;
            from += used as u64;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogStore, LogStream, LogWriter, Masker};
    use kobza_model::{LaunchId, RunId, TaskNo, Timestamp};

    fn launch() -> LaunchId {
        let run = "0190163d-8694-739b-aea5-966c26f8ad91".parse::<RunId>().unwrap();
        LaunchId { run, task: TaskNo(3), launch: 2 }
    }

    fn texts(page: &LogPage) -> Vec<String> {
        page.lines.iter().map(|l| l.text().into_owned()).collect()
    }

    #[test]
    fn written_lines_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::new(folder.path());
        assert!(store.path(launch()).ends_with("91/0190163d-8694-739b-aea5-966c26f8ad91/3/2.log"));
        let mut reader = store.reader(launch());
        assert_eq!(reader.len().unwrap(), 0);
        assert_eq!(reader.tail(5).unwrap(), LogPage::default());

        let mut scratch = Vec::new();
        let mut writer =
            LogWriter::new(store.path(launch()), 1 << 20, None).with_segment_bytes(200);
        for i in 0..5000i64 {
            let text = format!("line {i}\nrest");
            writer.write(LogStream::Stdout, text.as_bytes(), Timestamp(i), &mut scratch);
        }
        writer.write(LogStream::Stderr, b"oh\xff\0\r\n", Timestamp(9), &mut scratch);
        assert!(writer.has_partial());
        writer.finish(Timestamp(10), &mut scratch);
        assert!(!writer.has_partial());
        assert_eq!(reader.line_count().unwrap(), 5002);
        assert_eq!(texts(&reader.lines(0, 2).unwrap()), ["line 0", "restline 1"]);
        assert_eq!(texts(&reader.lines(4095, 2).unwrap()), ["restline 4095", "restline 4096"]);
        let tail = reader.tail(2).unwrap();
        assert_eq!(tail.lines[0].bytes, b"oh\xff\0\r");
        assert_eq!((tail.lines[1].partial, tail.lines[1].bytes.as_slice()), (true, &b"rest"[..]));
        assert_eq!(tail.next, reader.len().unwrap());
        assert!(reader.read(tail.next, 100).unwrap().lines.is_empty());
        assert_eq!(store.launches(launch().task_id()).unwrap(), [launch()]);

        // The same by offsets, in small pages.
        let (mut offset, mut count) = (0, 0);
        loop {
            let page = reader.read(offset, 64).unwrap();
            if page.lines.is_empty() {
                break;
            }
            count += page.lines.len();
            offset = page.next;
        }
        assert_eq!(count, 5002);
        store.remove_run(launch().run).unwrap();
        store.remove_run(launch().run).unwrap();
        assert_eq!(store.launches(launch().task_id()).unwrap(), []);
    }

    #[test]
    fn long_lines_are_cut_and_the_limit_is_stated() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::new(folder.path());
        let mut scratch = Vec::new();
        let mut writer = LogWriter::new(store.path(launch()), 100_000, None);
        let long = [vec![b'x'; 40_000], b"\n".to_vec()].concat();
        for piece in long.chunks(7_777) {
            writer.write(LogStream::Stdout, piece, Timestamp(1), &mut scratch);
        }
        let mut reader = store.reader(launch());
        let page = reader.lines(0, 9).unwrap();
        let lengths: Vec<_> = page.lines.iter().map(|l| (l.partial, l.bytes.len())).collect();
        assert_eq!(lengths, [(true, 16_384), (true, 16_384), (false, 7_232)]);

        let exact = [vec![b'y'; MAX], b"\n".to_vec()].concat();
        writer.write(LogStream::Stderr, &exact, Timestamp(1), &mut scratch);
        assert_eq!(reader.tail(1).unwrap().lines[0].bytes.len(), MAX);
        assert!(!reader.tail(1).unwrap().lines[0].partial);

        for _ in 0..100 {
            writer.write(LogStream::Stdout, &long, Timestamp(1), &mut scratch);
        }
        writer.finish(Timestamp(1), &mut scratch);
        assert!(writer.summary().truncated);
        let last = reader.tail(1).unwrap();
        assert!(texts(&last)[0].starts_with("log limit of 100000 bytes reached"), "{last:?}");
        assert_eq!(last.lines[0].stream, LogStream::System);
        assert!(reader.len().unwrap() < 100_200);
    }

    const MAX: usize = crate::MAX_LINE_BYTES;

    #[test]
    fn secrets_are_masked_before_lines_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        let store = LogStore::new(folder.path());
        let mut scratch = Vec::new();
        let masker = Masker::new(&["s3cr3t".to_string()]).unwrap();
        let mut writer = LogWriter::new(store.path(launch()), 1 << 20, masker.as_ref());
        for piece in ["a s3c", "r3t b\ns3cr", "3"] {
            writer.write(LogStream::Stdout, piece.as_bytes(), Timestamp(1), &mut scratch);
        }
        writer.finish(Timestamp(1), &mut scratch);
        assert_eq!(texts(&store.reader(launch()).tail(9).unwrap()), ["a *** b", "s3cr3"]);
    }

    #[test]
    fn a_failing_disk_is_stated() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        std::fs::write(&blocked, "").unwrap();
        let store = LogStore::new(&blocked);
        let mut scratch = Vec::new();
        let mut writer = LogWriter::new(store.path(launch()), 1 << 20, None);
        writer.write(LogStream::Stdout, b"lost\n", Timestamp(1), &mut scratch);
        assert!(writer.summary().error.is_some());
        assert_eq!(writer.summary().lost_bytes, 11);
        std::fs::remove_file(&blocked).unwrap();
        writer.write(LogStream::Stdout, b"kept\n", Timestamp(2), &mut scratch);
        let page = store.reader(launch()).tail(9).unwrap();
        assert!(texts(&page)[0].starts_with("11 bytes of log lost here"), "{page:?}");
        assert_eq!(texts(&page)[1], "kept");
    }
}
