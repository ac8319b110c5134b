//! Two who write at once: of one version there is one, and what both have done is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use archive::delta::{Add, Changes, DeltaTable, Outcome};
use archive::table::EVIDENCE;
use chrono::Utc;
use tokio::sync::Barrier;

use crate::world::{Place, World};

on_each_store! {
    of_two_who_take_the_same_step_one_does_and_the_other_learns_it,
    what_two_write_beside_one_another_is_all_there_and_once,
}

const ROUNDS: u64 = 40;

fn changes(source: &str, path: &str, from: u64) -> Changes {
    let add = Add {
        path: path.into(),
        partition_values: BTreeMap::from([("tenant".to_owned(), Some("t1".to_owned()))]),
        size: 1,
        modification_time: 0,
        data_change: true,
        stats: None,
        tags: None,
    };
    Changes { add: vec![add], positions: vec![(source.to_owned(), from, from + 1)], ..Changes::default() }
}

async fn open(world: &World) -> DeltaTable {
    DeltaTable::open(world.store(), &EVIDENCE).await.unwrap()
}

async fn of_two_who_take_the_same_step_one_does_and_the_other_learns_it(place: Place) {
    let world = Arc::new(World::on(place));
    let barrier = Arc::new(Barrier::new(2));
    let mut writers = tokio::task::JoinSet::new();
    for name in ["a", "b"] {
        let (world, barrier) = (world.clone(), barrier.clone());
        writers.spawn(async move {
            let mut table = open(&world).await;
            let mut won = BTreeSet::new();
            for round in 0..ROUNDS {
                barrier.wait().await;
                // Either of them begins where the round before ended, whoever ended it.
                table.refresh().await.unwrap();
                let outcome =
                    table.commit(changes("log", &format!("{name}-{round}"), round), Utc::now()).await.unwrap();
                if outcome == Outcome::Committed {
                    won.insert(format!("{name}-{round}"));
                }
                barrier.wait().await;
            }
            won
        });
    }
    let won: Vec<BTreeSet<String>> = writers.join_all().await;
    let table = open(&world).await;
    let snapshot = table.snapshot();
    assert_eq!((snapshot.version, snapshot.positions["log"]), (Some(ROUNDS - 1), ROUNDS));
    let files: BTreeSet<String> = snapshot.files.keys().cloned().collect();
    assert_eq!(files, won.iter().flatten().cloned().collect(), "who was told that it did it has done it");
    assert_eq!(files.len() as u64, ROUNDS);
    println!("of {ROUNDS} steps {} and {}", won[0].len(), won[1].len());
}

async fn what_two_write_beside_one_another_is_all_there_and_once(place: Place) {
    let world = Arc::new(World::on(place));
    let mut writers = tokio::task::JoinSet::new();
    for name in ["a", "b"] {
        let world = world.clone();
        writers.spawn(async move {
            let mut table = open(&world).await;
            for step in 0..ROUNDS {
                // One that others were ten times faster than is tried again, as the archiver does.
                while table.commit(changes(name, &format!("{name}-{step}"), step), Utc::now()).await.unwrap()
                    == Outcome::Overtaken
                {
                    table.refresh().await.unwrap();
                }
            }
        });
    }
    writers.join_all().await;
    let table = open(&world).await;
    let snapshot = table.snapshot();
    assert_eq!(snapshot.version, Some(2 * ROUNDS - 1), "a commit for each step and none besides");
    assert_eq!(snapshot.files.len() as u64, 2 * ROUNDS);
    assert!(["a", "b"].iter().all(|name| snapshot.positions[*name] == ROUNDS));
}
