//! The words of the platform as types: ids, names, limits, sizes, codes, and the rules that join them.
//!
//! Everything here is pure: no I/O, no async, no clock (time is an argument). Every other crate speaks
//! these types; none of them is defined twice.

pub mod autoscale;
pub mod buildpack;
pub mod codes;
pub mod config;
pub mod cron;
pub mod cycle;
pub mod dyno;
pub mod formation;
pub mod health;
pub mod ids;
pub mod image;
pub mod limits;
pub mod name;
pub mod network;
pub mod plan;
pub mod procfile;
pub mod reach;
pub mod release;
pub mod settings;
pub mod size;
pub mod usage;
