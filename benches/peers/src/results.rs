//! What was measured, to be asked.

use crate::{
    allocations::Allocations,
    harness::{Contestant, Row},
    operation::Operation,
    stats::{Estimate, median},
    who::Who,
};

/// All rows with their samples, and the allocations.
pub struct Results {
    /// In the order of the table.
    pub rows: Vec<Row>,
    allocations: Allocations,
}

impl Results {
    /// Of rows that were measured.
    pub fn new(rows: Vec<Row>, allocations: Allocations) -> Self {
        Self { rows, allocations }
    }

    /// The row of that key.
    pub fn row(&self, key: &str) -> &Row {
        self.rows.iter().find(|row| row.key() == key).unwrap_or_else(|| panic!("no row {key}"))
    }

    /// Allocations for each call; none if they were not counted.
    pub fn allocations(&self, row: &Row, who: Who) -> Option<f64> {
        self.allocations.get(&(row.key(), who.name().to_owned())).copied()
    }
}

impl Row {
    /// The contestant, if it can do this.
    pub fn contestant(&self, who: Who) -> Option<&Contestant> {
        self.contestants.iter().find(|contestant| contestant.who == who)
    }

    /// Nanoseconds for each call, by round; of an operation that is pending once, what is added to it.
    pub fn nanos(&self, who: Who) -> Option<Vec<f64>> {
        let nanos = &self.contestant(who)?.nanos;
        match self.contestant(Who::Floor) {
            Some(floor) if who != Who::Floor && self.operation == Some(Operation::PENDING_ONCE) => {
                Some(nanos.iter().zip(&floor.nanos).map(|(nanos, floor)| nanos - floor).collect())
            }
            _ => Some(nanos.clone()),
        }
    }

    /// Their median.
    pub fn median(&self, who: Who) -> Option<f64> {
        Some(median(&self.nanos(who)?))
    }

    /// The peer with the lowest median.
    pub fn best(&self) -> Option<Who> {
        let medians = Who::PEERS.into_iter().filter_map(|who| Some((who, self.median(who)?)));
        Some(medians.min_by(|(_, one), (_, other)| one.total_cmp(other))?.0)
    }

    /// This crate's time over another's, within each round; none if the other's is lost in the noise of the floor.
    pub fn ratio(&self, peer: Who) -> Option<Estimate> {
        const LOST: f64 = 2.0;
        if self.median(peer)? < LOST && self.operation == Some(Operation::PENDING_ONCE) {
            return None;
        }
        let (ours, theirs) = (self.nanos(Who::Withstand)?, self.nanos(peer)?);
        Some(Estimate::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs)))
    }
}
