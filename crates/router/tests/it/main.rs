//! The router on real sockets: a control that feeds it routes, dynos that behave and misbehave, clients that do too.

mod harness;

mod abuse;
mod bad_requests;
mod bodies;
mod cases;
mod clients;
mod connections;
mod continues;
mod differential;
mod dynos;
mod edge;
mod http2;
mod http2_table;
mod lifecycle;
mod routes;
mod secure;
mod servers;
