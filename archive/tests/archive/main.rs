//! The archive from outside: one program, because linking the query engine is most of a test's build.

mod archiver;
mod compaction;
mod hostile_sql;
mod retention;
mod skipping;
mod tables;
mod verify;
mod world;
