//! The whole product from outside: the built executable, real processes, real sockets, real files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test a panic is the report")]

#[path = "product/advice.rs"]
mod advice;

#[path = "product/support.rs"]
mod support;

#[path = "product/backpressure.rs"]
mod backpressure;

#[path = "product/faults.rs"]
mod faults;

#[path = "product/keeping.rs"]
mod keeping;

#[path = "product/resharding.rs"]
mod resharding;

#[path = "product/typed.rs"]
mod typed;

#[path = "product/records.rs"]
mod records;

#[path = "product/config.rs"]
mod config;

#[path = "product/crash.rs"]
mod crash;

#[path = "product/deliveries.rs"]
mod deliveries;

#[path = "product/dead_letters.rs"]
mod dead_letters;

#[path = "product/doctor.rs"]
mod doctor;

#[path = "product/filters.rs"]
mod filters;

#[path = "product/formats.rs"]
mod formats;

#[path = "product/following.rs"]
mod following;

#[path = "product/groups.rs"]
mod groups;

#[path = "product/hostile.rs"]
mod hostile;

#[path = "product/load.rs"]
mod load;

#[path = "product/load_restart.rs"]
mod load_restart;

#[path = "product/members.rs"]
mod members;

#[path = "product/measure.rs"]
mod measure;

#[path = "product/picture.rs"]
mod picture;

#[path = "product/plan.rs"]
mod plan;

#[path = "product/recording.rs"]
mod recording;

#[path = "product/refusals.rs"]
mod refusals;

#[path = "product/replay.rs"]
mod replay;

#[path = "product/search.rs"]
mod search;

#[path = "product/truth.rs"]
mod truth;

#[path = "product/windows.rs"]
mod windows;
