//! What the archive has had and does not keep is forgotten, and nothing else.
//!
//! Negative control: with `HARRIER_BREAK=retire-unarchived` nobody asks whether the archive has had it, and the test must
//! fail.

use runtime::log::{Lease, ReadLimit, Txn};
use schemas::envelope::Received;
use schemas::message::{Verdict, Verdicts};

use super::super::judging_again::tests::{Bed, Chance, PARTITIONS, base, book, received};
use super::super::offer;
use super::*;

fn record(number: usize, day: &str) -> Received {
    let bytes =
        format!(r#"{{"Id":"{number}","CreationTime":"{day}T10:00:00","Operation":"x","UserId":"u@b.example"}}"#);
    received("t1", bytes)
}

/// Messages that are no records, so many that batches lie further apart than any reaches.
async fn time_passes(bed: &Bed) {
    for minute in 0..=BATCH_OFFSETS_MAX {
        let until = chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(minute as i64);
        bed.mark("t9", "x", until).await;
    }
}

/// How many records were admitted so far, and how many known.
async fn admitted(bed: &Bed) -> (usize, usize) {
    let mut verdicts = Vec::new();
    for partition in 0..PARTITIONS {
        let limit = ReadLimit { messages: usize::MAX, bytes: usize::MAX };
        for message in bed.log.read(Topic::Verdicts, partition, 0, limit).await.unwrap() {
            let of_batch: Verdicts = serde_json::from_slice(&message.value).unwrap();
            verdicts.extend(of_batch.each().filter_map(|(_, code)| Verdict::from_code(code)));
        }
    }
    let count = |wanted: Verdict| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    (count(Verdict::Admitted), count(Verdict::Duplicate))
}

/// Lets every partition forget all it can. How many records that were.
async fn retire(bed: &Bed) -> u64 {
    let mut records = 0;
    for partition in 0..PARTITIONS {
        let lease = Lease { consumer: Consumer::Match, partition, owner: "test".into() };
        assert!(bed.log.acquire(&lease, Duration::from_secs(60)).await.unwrap());
        let mut retiring = Retiring::new(Arc::new(bed.shelf.clone()));
        assert!(retiring.next(&bed.log, partition).await.unwrap().is_none(), "it has looked just now");
        retiring.looked = Instant::now().checked_sub(LOOK_INTERVAL).unwrap();
        while let Some(retired) = retiring.next(&bed.log, partition).await.unwrap() {
            records += retired.records;
            let txn = Txn { state: retired.rows, lease: Some(lease.clone()), ..Txn::default() };
            bed.log.commit(txn).await.unwrap();
        }
    }
    records
}

#[tokio::test]
async fn days_that_the_archive_does_not_keep_are_forgotten_once_it_has_had_them() {
    let (mut bed, mut chance) = (Bed::new(), Chance(1));
    offer(&bed.log, &book(&[base("x", "x")]), false).await.unwrap();
    // Two on the first day, one on the second, and one that is kept.
    let records = [record(0, "2026-01-01"), record(1, "2026-01-01"), record(2, "2026-01-02"), record(3, "2026-03-01")];
    bed.put(&records).await;
    bed.settle(&mut chance).await;
    time_passes(&bed).await;
    bed.settle(&mut chance).await;
    assert_eq!((admitted(&bed).await, retire(&bed).await), ((4, 0), 0), "nothing was taken out");
    // The second day is held.
    bed.shelf.rows.lock().unwrap().retain(|row| !row.bytes.windows(10).any(|text| text == b"2026-01-01"));
    *bed.shelf.kept_since.lock().unwrap() = Some("2026-02-01".parse().unwrap());
    // One more of the first day is on its way to the archive.
    bed.put(&[record(4, "2026-01-01")]).await;
    for partition in 0..PARTITIONS {
        bed.match_step(partition).await;
    }
    assert_eq!(retire(&bed).await, 2, "those of the first day that the archive has had");
    assert_eq!(retire(&bed).await, 0);
    bed.restart();
    bed.put(&records).await;
    bed.put(&[record(4, "2026-01-01")]).await;
    bed.settle(&mut chance).await;
    assert_eq!(admitted(&bed).await, (4 + 1 + 2, 3));
}
