//! Which files of a partition become one. Pure, and the same for every table.
//!
//! While a partition grows, files of about one size are merged when there are [`Plan::files_min`] of them: every merge
//! makes a file of the next size, so a row is written again once a size, four or five times in all, and a partition never
//! has more than some dozen files. Once nothing has come to a partition for a while, what is left is merged, but a large
//! file only with as much beside it that writing it again is worth it: a late record does not move a day.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// Files from here on are as they should be and are not touched. Half of what a merge may make.
const LARGE_BYTES: u64 = MERGE_BYTES_MAX / 2;

/// A merge takes in no more than this: its memory is about three times as much (files in, rows under way, file out).
const MERGE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// And no more files than this: each has a batch of its rows in memory.
const MERGE_FILES_MAX: usize = 64;

/// Each size is so many times the one below.
const SIZE_FACTOR: u64 = 16;

/// Files below this are of the smallest size.
const SMALLEST_BYTES: u64 = 16 * 1024;

/// Once a partition rests, a file is merged if it is no larger than so many times what is smaller beside it.
const REST_FACTOR: u64 = 8;

/// When files become one.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// So many files of about one size become one.
    pub files_min: usize,
    /// A partition rests when nothing has come to it for so long.
    pub rests_after: Duration,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { files_min: SIZE_FACTOR as usize, rests_after: Duration::from_secs(2 * 3600) }
    }
}

/// A file of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    pub(super) bytes: u64,
    pub(super) path: &'a str,
    /// When the newest of its rows came: milliseconds since 1970.
    pub(super) modified: i64,
}

/// The files to merge next, or none if all is as it should be.
pub(super) fn choose<'a>(files: &[Candidate<'a>], plan: Plan, now: DateTime<Utc>) -> Vec<Candidate<'a>> {
    let mut small: Vec<Candidate<'a>> = files.iter().copied().filter(|file| file.bytes < LARGE_BYTES).collect();
    small.sort_unstable_by_key(|file| (file.bytes, file.path));
    let of_one_size = small.chunk_by(|a, b| size(a.bytes) == size(b.bytes)).find(|files| files.len() >= plan.files_min);
    if let Some(files) = of_one_size {
        return within_limits(files);
    }
    let newest = files.iter().map(|file| file.modified).max().unwrap_or(0);
    let rests_after = i64::try_from(plan.rests_after.as_millis()).unwrap_or(i64::MAX);
    if now.timestamp_millis().saturating_sub(newest) < rests_after {
        return Vec::new();
    }
    let mut bytes = 0;
    let worth = small.iter().take_while(|file| {
        let is_worth = bytes == 0 || file.bytes <= REST_FACTOR * bytes.max(SMALLEST_BYTES);
        bytes += file.bytes;
        is_worth
    });
    within_limits(&worth.copied().collect::<Vec<_>>())
}

fn size(bytes: u64) -> u32 {
    (bytes / SMALLEST_BYTES).checked_ilog(SIZE_FACTOR).map_or(0, |size| size + 1)
}

/// As many from the small end as one merge may take; none, if that is no more than one.
fn within_limits<'a>(files: &[Candidate<'a>]) -> Vec<Candidate<'a>> {
    let mut bytes = 0;
    let fitting = files.iter().copied().take(MERGE_FILES_MAX).take_while(|file| {
        bytes += file.bytes;
        bytes <= MERGE_BYTES_MAX
    });
    let chosen: Vec<_> = fitting.collect();
    if chosen.len() > 1 { chosen } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;

    /// Lands files of these sizes, a minute apart, merging whenever it is due; then lets the partition rest. Returns the
    /// most files there ever were, the files in the end, and how many bytes were written for each that came.
    fn play(sizes: impl Iterator<Item = u64>) -> (usize, Vec<u64>, f64) {
        let mut files: Vec<(String, u64, i64)> = Vec::new();
        let (mut most, mut written, mut landed, mut millis) = (0, 0, 0, 0);
        let mut merge = |files: &mut Vec<(String, u64, i64)>, now: i64| {
            loop {
                let candidates: Vec<_> = files
                    .iter()
                    .map(|(path, bytes, modified)| Candidate { path, bytes: *bytes, modified: *modified })
                    .collect();
                let at = DateTime::from_timestamp_millis(now).unwrap();
                let chosen: Vec<String> =
                    choose(&candidates, Plan::default(), at).iter().map(|file| file.path.to_owned()).collect();
                if chosen.is_empty() {
                    return;
                }
                let (merged, left): (Vec<_>, Vec<_>) = files.drain(..).partition(|file| chosen.contains(&file.0));
                let (bytes, newest) = (merged.iter().map(|file| file.1).sum(), merged.iter().map(|file| file.2).max());
                written += bytes;
                *files = left;
                files.push((format!("c{written}"), bytes, newest.unwrap_or(0)));
            }
        };
        for (index, bytes) in sizes.enumerate() {
            millis = index as i64 * 60_000;
            files.push((format!("h{index}"), bytes, millis));
            landed += bytes;
            merge(&mut files, millis);
            most = most.max(files.len());
        }
        merge(&mut files, millis + 3 * HOUR);
        let mut left: Vec<u64> = files.into_iter().map(|file| file.1).collect();
        left.sort_unstable();
        (most, left, written as f64 / landed as f64)
    }

    #[test]
    fn a_day_of_flushes_ends_in_a_few_files_and_each_row_is_written_a_few_times() {
        for (what, bytes) in [("a small tenant", 9_000_u64), ("a middling one", 200_000), ("a large one", 6_000_000)] {
            let (most, left, times) = play(std::iter::repeat_n(bytes, 2880));
            println!("{what}: at most {most} files, {} in the end, each row written {times:.1} times", left.len());
            assert!(most <= 5 * 16 + (2880 * bytes / LARGE_BYTES) as usize, "{what}: {most}");
            assert!(times < 6.0, "{what}: {times}");
            assert!(left.iter().filter(|&&bytes| bytes < LARGE_BYTES).count() <= 3, "{what}: {left:?}");
        }
    }

    #[test]
    fn what_is_large_or_alone_is_left_alone_and_a_late_record_does_not_move_a_day() {
        let day = |bytes: &[u64]| {
            let paths: Vec<String> = bytes.iter().map(u64::to_string).collect();
            let files: Vec<_> =
                paths.iter().zip(bytes).map(|(path, &bytes)| Candidate { bytes, path, modified: 0 }).collect();
            let now = DateTime::from_timestamp_millis(3 * HOUR).unwrap();
            choose(&files, Plan::default(), now).iter().map(|file| file.bytes).collect::<Vec<_>>()
        };
        assert!(day(&[]).is_empty() && day(&[5]).is_empty());
        assert!(day(&[LARGE_BYTES, LARGE_BYTES + 1]).is_empty());
        assert!(day(&[5_000, 60 << 20]).is_empty(), "5 kB are not worth 60 MiB");
        assert_eq!(day(&[8 << 20, 60 << 20]), [8 << 20, 60 << 20]);
        assert_eq!(day(&[9_000, 9_001]), [9_000, 9_001]);
    }

    proptest! {
        #[test]
        fn it_comes_to_an_end_within_its_limits(sizes in proptest::collection::vec(1_u64..80_000_000, 1..200)) {
            // `play` returns only if merging ends.
            let (_, left, times) = play(sizes.iter().copied());
            prop_assert_eq!(left.iter().sum::<u64>(), sizes.iter().sum::<u64>());
            prop_assert!(left.iter().all(|&bytes| bytes <= MERGE_BYTES_MAX));
            prop_assert!(times < 8.0, "{}", times);
        }
    }
}
