//! Which dyno has which host number in the platform's range.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dozen_domain::ids::DynoId;

use super::range::HOSTS;

/// First number for a dyno; 0 is the network, 1 the bridge.
const FIRST: u16 = 2;

/// Numbers given out. The next one is the longest unused, so that nobody sends a new dyno what was meant for an old one.
#[derive(Debug, Default)]
pub(super) struct Leases {
    of: HashMap<u16, DynoId>,
    last: u16,
}

impl Leases {
    pub(super) fn take(&mut self, dyno: DynoId) -> Option<u16> {
        let last_number = HOSTS - 2; // the one after is the broadcast address
        for _ in FIRST..=last_number {
            self.last = if self.last < FIRST || self.last >= last_number { FIRST } else { self.last + 1 };
            if !self.of.contains_key(&self.last) {
                self.of.insert(self.last, dyno);
                return Some(self.last);
            }
        }
        None
    }

    pub(super) fn claim(&mut self, dyno: DynoId, number: u16) {
        self.of.insert(number, dyno);
        self.last = self.last.max(number);
    }

    pub(super) fn release(&mut self, dyno: DynoId) {
        self.of.retain(|_, holder| *holder != dyno);
    }
}

pub(super) fn lock(leases: &Mutex<Leases>) -> MutexGuard<'_, Leases> {
    leases.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_come_back_last() {
        let mut leases = Leases::default();
        let (a, b) = (DynoId::random(), DynoId::random());
        assert_eq!((leases.take(a), leases.take(b)), (Some(2), Some(3)));
        leases.release(a);
        assert_eq!(leases.take(DynoId::random()), Some(4));
        while leases.take(DynoId::random()).is_some() {}
        assert_eq!(leases.of.len(), usize::from(HOSTS - 3));
        leases.release(b);
        assert_eq!(leases.take(a), Some(3));
    }

    #[test]
    fn a_claimed_number_is_not_given_out() {
        let mut leases = Leases::default();
        leases.claim(DynoId::random(), 2);
        leases.claim(DynoId::random(), 7);
        assert_eq!(leases.take(DynoId::random()), Some(8));
    }
}
