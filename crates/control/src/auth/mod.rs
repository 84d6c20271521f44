//! Who is asking: accounts, tokens, passwords, tickets, and how often they may ask.

pub mod failures;
pub mod keys;
pub mod password;
pub mod rate;
pub mod ticket;
pub mod token;
