//! Windows, histories and findings, seen from outside: matches and observations in, revisions out.
//!
//! * [`property`]: any set of matches, in any order, batching, duplication and with a restart at every point, stands as
//!   [`oracle`] says, which computes it naively from the whole set.
//! * [`horizon`]: the same where members are forgotten at any moment, and late ones are judged from an archive.
//! * [`script`]: stories with telling names, `*.script` in this folder, each with its golden answer inside. Update with
//!   `UPDATE_GOLDEN=1 cargo test -p detect --test windows`.

mod fixture;
mod horizon;
mod oracle;
mod property;
mod script;
