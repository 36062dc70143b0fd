//! Processors and whatever else is counted, in thousandths, so that halves add up exactly.

use std::collections::BTreeMap;

/// One processor, in thousandths.
pub const ONE_CPU: u64 = 1000;

/// An amount of each thing that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// Thousandths of processors.
    pub cpu: u64,
    /// Thousandths of accelerators.
    pub gpu: u64,
    /// Thousandths of whatever else, by name.
    pub other: BTreeMap<String, u64>,
}

impl Resources {
    /// So many thousandths of a processor.
    pub fn cpu(cpu: u64) -> Self {
        Self { cpu, ..Self::default() }
    }

    /// Whether this is no more than `there`.
    pub fn fits(&self, there: &Self) -> bool {
        self.cpu <= there.cpu
            && self.gpu <= there.gpu
            && self.other.iter().all(|(name, amount)| *amount <= there.other.get(name).copied().unwrap_or(0))
    }

    /// Takes `amount` away. What goes on after it was blocked may take more than there is: then there is none.
    pub(crate) fn take(&mut self, amount: &Self, debt: &mut Self) {
        take(&mut self.cpu, amount.cpu, &mut debt.cpu);
        take(&mut self.gpu, amount.gpu, &mut debt.gpu);
        for (name, amount) in &amount.other {
            let there = self.other.entry(name.clone()).or_default();
            take(there, *amount, debt.other.entry(name.clone()).or_default());
        }
    }

    /// Gives `amount` back, against what is owed first.
    pub(crate) fn give(&mut self, amount: &Self, debt: &mut Self) {
        give(&mut self.cpu, amount.cpu, &mut debt.cpu);
        give(&mut self.gpu, amount.gpu, &mut debt.gpu);
        for (name, amount) in &amount.other {
            let there = self.other.entry(name.clone()).or_default();
            give(there, *amount, debt.other.entry(name.clone()).or_default());
        }
    }
}

fn take(there: &mut u64, amount: u64, debt: &mut u64) {
    let taken = amount.min(*there);
    *there -= taken;
    *debt += amount - taken;
}

fn give(there: &mut u64, amount: u64, debt: &mut u64) {
    let repaid = amount.min(*debt);
    *debt -= repaid;
    *there += amount - repaid;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debts_are_repaid_first() {
        let (mut there, mut debt) = (Resources::cpu(1500), Resources::default());
        let one = Resources::cpu(ONE_CPU);
        assert!(one.fits(&there));
        there.take(&one, &mut debt);
        there.take(&one, &mut debt);
        assert_eq!((there.cpu, debt.cpu), (0, 500));
        there.give(&one, &mut debt);
        assert_eq!((there.cpu, debt.cpu), (500, 0));
        let named = Resources { other: [("x".to_owned(), 1)].into(), ..Resources::default() };
        assert!(!named.fits(&there));
    }
}
