//! The archive from outside: one program, because linking the query engine is most of a test's build.

/// Runs each of these tests twice: over a folder, and over a store that speaks S3.
macro_rules! on_each_store {
    ($($name:ident,)+) => {
        mod on_a_folder {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::world::Place::Folder).await;
            })+
        }
        mod on_s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if crate::world::Place::S3.is_there() {
                    super::$name(crate::world::Place::S3).await;
                }
            })+
        }
    };
}

mod archiver;
mod cleaning;
mod compaction;
mod erasure;
mod hostile_sql;
mod object_store;
mod postgres;
mod postgres_client;
mod racing;
mod retention;
#[path = "../s3/mod.rs"]
mod s3;
mod skipping;
mod tables;
mod verify;
mod verify_beside;
mod world;
