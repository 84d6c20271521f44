//! The Platform API over HTTP. [`routes`] is the whole table; a file per resource holds its handlers.

pub mod routes;
