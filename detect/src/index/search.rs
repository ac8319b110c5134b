//! Looking for many texts in one value at once: those that it may begin with, and those that may be anywhere in it.
//!
//! Nearly every value holds none of them, and that is what is found out first: a beginning is given up at the first
//! character that none of them has there, and for the others sixteen bytes of the value are compared at a time.

use std::collections::HashMap;

use aho_corasick::automaton::OverlappingState;
use aho_corasick::packed::Searcher;
use aho_corasick::{AhoCorasick, Anchored, Input, StartKind};
use memchr::memmem::Finder;

/// The positions of the detections that ask for a text.
type Detections = Vec<usize>;

/// From so many texts on, looking for all at once is quicker.
const TOGETHER_MIN: usize = 4;

#[derive(Debug)]
pub(super) struct Search {
    beginnings: Beginnings,
    inside: Inside,
}

#[derive(Debug)]
struct Beginning {
    text: String,
    is_all: bool,
    detections: Detections,
}

impl Beginning {
    fn is_of(&self, value: &str) -> bool {
        let beginning = value.as_bytes().get(..self.text.len());
        let is_of = beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(self.text.as_bytes()));
        is_of && (!self.is_all || self.text.len() == value.len())
    }
}

#[derive(Debug)]
enum Beginnings {
    /// One after the other.
    Each(Vec<Beginning>),
    /// At once; the texts by their number.
    Together(AhoCorasick, Vec<Beginning>),
}

#[derive(Debug)]
enum Inside {
    Each(Vec<(Finder<'static>, Detections)>),
    /// First, if the machine can, only whether there is one at all; the detections by the number of the text.
    Together(Option<Box<Searcher>>, AhoCorasick, Vec<Detections>),
}

impl Search {
    pub fn new(beginnings: &HashMap<(String, bool), Detections>, texts: &HashMap<String, Detections>) -> Search {
        Search { beginnings: Beginnings::new(beginnings), inside: Inside::new(texts) }
    }

    /// Calls `found` with the detections of each text that a value begins with, which is folded or has ASCII only.
    pub fn each_beginning(&self, value: &str, mut found: impl FnMut(&[usize])) {
        self.beginnings.each(value, &mut found);
    }

    /// Calls `found` with the detections of each text that a folded value begins with or holds.
    pub fn each(&self, value: &str, mut found: impl FnMut(&[usize])) {
        self.beginnings.each(value, &mut found);
        self.inside.each(value, &mut found);
    }
}

impl Beginnings {
    fn new(beginnings: &HashMap<(String, bool), Detections>) -> Beginnings {
        let beginning = |((text, is_all), detections): (&(String, bool), &Detections)| Beginning {
            text: text.clone(),
            is_all: *is_all,
            detections: detections.clone(),
        };
        let all: Vec<Beginning> = beginnings.iter().map(beginning).collect();
        if all.len() < TOGETHER_MIN {
            return Beginnings::Each(all);
        }
        let automaton = AhoCorasick::builder()
            .start_kind(StartKind::Anchored)
            .ascii_case_insensitive(true)
            .build(all.iter().map(|one| &one.text));
        match automaton {
            Ok(automaton) => Beginnings::Together(automaton, all),
            // More texts than an automaton can hold.
            Err(_) => Beginnings::Each(all),
        }
    }

    fn each(&self, value: &str, found: &mut impl FnMut(&[usize])) {
        let (Beginnings::Each(all) | Beginnings::Together(_, all)) = self;
        let Beginnings::Together(automaton, _) = self else {
            return all.iter().filter(|one| one.is_of(value)).for_each(|one| found(&one.detections));
        };
        let mut state = OverlappingState::start();
        loop {
            let input = Input::new(value).anchored(Anchored::Yes);
            if automaton.try_find_overlapping(input, &mut state).is_err() {
                // It was made for this. Were it to refuse all the same, nothing may be left out.
                return all.iter().for_each(|one| found(&one.detections));
            }
            let Some(at) = state.get_match() else { return };
            // What another text ends with is found in it, and is no beginning.
            let is_of = |one: &&Beginning| at.start() == 0 && (!one.is_all || at.end() == value.len());
            if let Some(one) = all.get(at.pattern().as_usize()).filter(is_of) {
                found(&one.detections);
            }
        }
    }
}

impl Inside {
    fn new(texts: &HashMap<String, Detections>) -> Inside {
        let each = || {
            let finder =
                |(text, detections): (&String, &Detections)| (Finder::new(text).into_owned(), detections.clone());
            Inside::Each(texts.iter().map(finder).collect())
        };
        if texts.len() < TOGETHER_MIN {
            return each();
        }
        match AhoCorasick::new(texts.keys()) {
            Ok(automaton) => {
                let quick = Searcher::new(texts.keys()).map(Box::new);
                Inside::Together(quick, automaton, texts.values().cloned().collect())
            }
            Err(_) => each(),
        }
    }

    fn each(&self, value: &str, found: &mut impl FnMut(&[usize])) {
        match self {
            Inside::Each(texts) => {
                let is_in = |(text, _): &&(Finder<'_>, _)| text.find(value.as_bytes()).is_some();
                texts.iter().filter(is_in).for_each(|(_, detections)| found(detections));
            }
            Inside::Together(quick, automaton, detections) => {
                if quick.as_ref().is_some_and(|quick| quick.find(value).is_none()) {
                    return;
                }
                automaton.find_overlapping_iter(value).for_each(|at| found(&detections[at.pattern().as_usize()]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_a_beginning_ends_with_is_no_beginning() {
        let beginnings = ["abcd", "a", "d", "x"].iter().enumerate();
        let beginnings = beginnings.map(|(at, text)| (((*text).to_owned(), false), vec![at])).collect();
        let mut found = Vec::new();
        Search::new(&beginnings, &HashMap::new()).each("abcd", |detections| found.extend(detections.to_vec()));
        found.sort_unstable();
        assert_eq!(found, [0, 1]);
    }

    proptest::proptest! {
        /// Whatever the number of texts: those that are there are found, and no others.
        #[test]
        fn exactly_the_texts_that_are_there_are_found(
            beginnings in proptest::collection::hash_set(("[abé]{1,5}", proptest::bool::ANY), 0..40),
            texts in proptest::collection::hash_set("[abé]{1,5}", 0..80),
            value in "([abc]|[abcé]){0,60}",
        ) {
            let beginnings: HashMap<(String, bool), Vec<usize>> =
                beginnings.into_iter().enumerate().map(|(at, key)| (key, vec![at])).collect();
            let texts: HashMap<String, Vec<usize>> =
                texts.into_iter().enumerate().map(|(at, text)| (text, vec![100 + at])).collect();
            let mut found = BTreeSet::new();
            Search::new(&beginnings, &texts).each(&value, |detections| found.extend(detections.to_vec()));
            let is_beginning = |(text, is_all): &(String, bool)| {
                if *is_all { *text == value } else { value.starts_with(text.as_str()) }
            };
            let of_beginnings = beginnings.iter().filter(|(key, _)| is_beginning(key)).flat_map(|(_, at)| at);
            let of_texts = texts.iter().filter(|(text, _)| value.contains(text.as_str())).flat_map(|(_, at)| at);
            let of_beginnings: BTreeSet<usize> = of_beginnings.copied().collect();
            let mut as_written = BTreeSet::new();
            if value.is_ascii() {
                let search = Search::new(&beginnings, &texts);
                search.each_beginning(&value.to_uppercase(), |detections| as_written.extend(detections.to_vec()));
                proptest::prop_assert_eq!(&as_written, &of_beginnings);
            }
            proptest::prop_assert_eq!(found, of_texts.copied().chain(of_beginnings).collect::<BTreeSet<_>>());
        }
    }
}
