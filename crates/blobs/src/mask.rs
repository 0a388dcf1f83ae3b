//! Replaces secret values in a stream of bytes, also where a value is cut by the border between
//! two reads.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Shorter values are not masked: they occur everywhere, and the mask would show where.
const MIN_SECRET_BYTES: usize = 3;
/// Lines of a secret of many lines (a key file) are masked one by one too, from this length on.
const MIN_SECRET_LINE_BYTES: usize = 8;

/// The secrets could not be made into a search.
#[derive(Debug, thiserror::Error)]
#[error("the secrets of the task cannot be masked: {0}")]
pub struct MaskError(#[from] aho_corasick::BuildError);

/// The secrets of one task, ready to be searched for.
#[derive(Clone, Debug)]
pub struct Masker {
    search: AhoCorasick,
    secrets: Arc<Vec<Vec<u8>>>,
    longest: usize,
}

impl Masker {
    /// None if there is nothing to mask. An error (absurdly many or long secrets) must keep the
    /// task from running: its log could not be masked.
    pub fn new(secrets: &[String]) -> Result<Option<Self>, MaskError> {
        let mut values: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            let whole = secret.trim_end_matches(['\n', '\r']);
            if whole.len() >= MIN_SECRET_BYTES {
                values.push(whole.as_bytes().to_vec());
            }
            if whole.contains('\n') {
                let lines = whole.lines().map(str::trim);
                values.extend(
                    lines
                        .filter(|line| line.len() >= MIN_SECRET_LINE_BYTES)
                        .map(|line| line.as_bytes().to_vec()),
                );
            }
        }
        values.sort();
        values.dedup();
        if values.is_empty() {
            return Ok(None);
        }
        Self::of(values).map(Some)
    }

    /// One that masks further secrets too. None if there is nothing to mask.
    pub fn with_more(old: Option<&Self>, secrets: &[String]) -> Result<Option<Self>, MaskError> {
        let Some(old) = old else { return Self::new(secrets) };
        let Some(new) = Self::new(secrets)? else { return Ok(Some(old.clone())) };
        let mut values: Vec<Vec<u8>> = old.secrets.iter().chain(&*new.secrets).cloned().collect();
        values.sort();
        values.dedup();
        Self::of(values).map(Some)
    }

    fn of(values: Vec<Vec<u8>>) -> Result<Self, MaskError> {
        let longest = values.iter().map(Vec::len).max().unwrap_or(0);
        let search =
            AhoCorasickBuilder::new().match_kind(MatchKind::LeftmostLongest).build(&values)?;
        Ok(Self { search, secrets: Arc::new(values), longest })
    }

    /// A text with every secret replaced.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        let masked =
            self.search.replace_all_bytes(text.as_bytes(), &vec![MASK; self.secrets.len()]);
        String::from_utf8_lossy(&masked).into_owned()
    }

    /// Begins a stream.
    #[must_use]
    pub fn stream(&self) -> MaskStream {
        MaskStream { masker: self.clone(), held: Vec::new() }
    }

    /// Where the longest end of `bytes` begins that may be the beginning of a secret.
    fn undecided_from(&self, bytes: &[u8]) -> usize {
        let first = bytes.len().saturating_sub(self.longest - 1);
        (first..bytes.len())
            .find(|&at| {
                let end = &bytes[at..];
                self.secrets.iter().any(|s| s.len() > end.len() && s.starts_with(end))
            })
            .unwrap_or(bytes.len())
    }
}

/// One stream being masked. Holds back only what may be the beginning of a secret.
#[derive(Debug)]
pub struct MaskStream {
    masker: Masker,
    held: Vec<u8>,
}

impl MaskStream {
    /// Goes on with another masker, which knows at least the same secrets.
    pub(crate) fn switch(&mut self, masker: &Masker) {
        self.masker = masker.clone();
    }

    /// Takes the next bytes and appends to `out` what is decided.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let undecided = self.masker.undecided_from(&self.held);
        let used = self.emit(undecided, out);
        self.held.drain(..used);
    }

    /// The stream has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.emit(self.held.len(), out);
        self.held.clear();
    }

    /// Masks what begins before `until`; a match may end behind it.
    fn emit(&self, until: usize, out: &mut Vec<u8>) -> usize {
        let mut done = 0;
        for found in self.masker.search.find_iter(&self.held) {
            if found.start() >= until {
                break;
            }
            out.extend_from_slice(&self.held[done..found.start()]);
            out.extend_from_slice(MASK.as_bytes());
            done = found.end();
        }
        if done < until {
            out.extend_from_slice(&self.held[done..until]);
            done = until;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masker(secrets: &[&str]) -> Masker {
        Masker::new(&secrets.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap().unwrap()
    }

    #[test]
    fn nothing_to_mask() {
        assert!(Masker::new(&[]).unwrap().is_none());
        assert!(Masker::new(&[String::new(), "ab".into()]).unwrap().is_none());
    }

    #[test]
    fn longest_first_and_over_borders() {
        let m = masker(&["hunter2", "hunter2000", "abc"]);
        let mut s = m.stream();
        let mut out = Vec::new();
        for piece in ["x hun", "ter2", "0", "00 hunter2", " aab", "c hunt"] {
            s.push(piece.as_bytes(), &mut out);
        }
        assert_eq!(out, b"x *** *** a*** ", "only `hunt` is held back");
        s.finish(&mut out);
        assert_eq!(out, b"x *** *** a*** hunt");
    }

    #[test]
    fn secrets_may_come_later() {
        let old = masker(&["hunter2"]);
        let new = Masker::with_more(Some(&old), &["swordfish".into()]).unwrap().unwrap();
        let (mut s, mut out) = (old.stream(), Vec::new());
        s.push(b"a hunt", &mut out);
        s.switch(&new);
        s.push(b"er2 swordfish", &mut out);
        s.finish(&mut out);
        assert_eq!(out, b"a *** ***");
        assert!(Masker::with_more(None, &[]).unwrap().is_none());
    }

    #[test]
    fn lines_of_a_key() {
        let m = masker(&["-----BEGIN-----\nMIIabcdef\n-----END-----\n"]);
        assert_eq!(m.mask("got MIIabcdef!"), "got ***!");
    }

    proptest! {
        #[test]
        fn cutting_makes_no_difference(
            text in "[ab]{0,60}", cuts in proptest::collection::vec(0usize..60, 0..6),
        ) {
            let m = masker(&["aba", "abab", "bbb", "abbaab"]);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&c| c <= text.len()).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut s = m.stream();
            let mut out = Vec::new();
            let mut from = 0;
            for cut in cuts {
                s.push(&text.as_bytes()[from..cut], &mut out);
                from = cut;
            }
            s.finish(&mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), m.mask(&text));
        }
    }
}
