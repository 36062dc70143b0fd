//! Persistent trees of extents: where the pages of each object are.
//!
//! A tree is balanced by height; each node has an extent, and its pages come after those of its left child and before those
//! of its right. Nodes never change once they are in an object's tree, and trees share them: an object that is made of
//! another by laying a page over it has some ten nodes of its own, and the rest in common. Everything is made of `split` and
//! `join` (Blelloch, Ferizovic, Sun: *Just Join for Parallel Ordered Sets*, SPAA 2016, with the balance of height-balanced
//! trees whose sides may differ by two).
//!
//! ```text
//!        object A, 1000 pages                    object B = A with page 700 written
//!
//!        ┌──────────────────┐                    ┌──────────────────┐
//!        │ s3[0..1000]      │                    │ s4[7..8]         │
//!        └──────────────────┘                    └──┬────────────┬──┘
//!                                        ┌──────────┴───────┐  ┌─┴────────────────┐
//!                                        │ s3[0..700]       │  │ s3[701..1000]    │
//!                                        └──────────────────┘  └──────────────────┘
//!        counts of s3: pages 0-699 and 701-999 two, page 700 one; of s4: page 7 one
//! ```
//!
//! A node is 32 bytes: children 4 + 4, references 4, pages below it 4, extent 12, height 1, whether it is fresh 1.
//!
//! 1. A node's references are the parents and the objects that point at it. At zero it is dead: it waits to be swept, and
//!    still covers its pages.
//! 2. Every node that is not fresh covers its extent: each page of it has one count for it. A fresh node belongs to the
//!    tree that is being built, and covers nothing yet; a build that fails leaves no trace.
//! 3. The heights of a node's children differ by at most two.
//! 4. There are at most `max_nodes` nodes and so fewer than 2^31; no count of them, nor of references to one (two a node
//!    and one an object, of which there are fewer than 2^30), passes a `u32`.

use dmrpc_pages::Extent;
use dmrpc_wire::Status;

/// More tree nodes than this are never allowed: references are counted in 32 bits.
pub(crate) const MAX_TREE_NODES: usize = 1 << 30;

/// Pages that one unit of sweeping uncovers at most, so that a large object is freed in bounded steps.
const SWEEP_PAGES: u32 = 1 << 14;

const NONE: u32 = u32::MAX;

/// A tree, as an object has it: one reference to its topmost node. Not `Clone`: references are counted.
#[derive(Debug)]
pub(crate) struct Root(u32);

impl Root {
    /// The tree of no pages.
    pub(crate) const EMPTY: Root = Root(NONE);
}

struct Node {
    left: u32,
    right: u32,
    references: u32,
    /// Pages of the whole subtree. In a dead node: the next dead one. In an unused one: the next unused one.
    pages: u32,
    extent: Extent,
    /// Zero in unused nodes.
    height: u8,
    fresh: bool,
}

const _: () = assert!(size_of::<Node>() == 32);

/// All trees.
pub(crate) struct Snapshots {
    nodes: Vec<Node>,
    max_nodes: usize,
    used: usize,
    unused: u32,
    dead: u32,
}

impl Snapshots {
    pub(crate) fn new(max_nodes: usize) -> Self {
        Self { nodes: Vec::new(), max_nodes: max_nodes.min(MAX_TREE_NODES), used: 0, unused: NONE, dead: NONE }
    }

    /// Nodes in use, dead ones that are not yet swept included.
    pub(crate) fn nodes(&self) -> usize {
        self.used
    }

    /// Whether no dead nodes wait to be swept.
    pub(crate) fn is_swept(&self) -> bool {
        self.dead == NONE
    }

    pub(crate) fn pages(&self, root: &Root) -> u32 {
        self.pages_of(root.0)
    }

    /// A new tree of `pages` pages: `base` cut or extended by a hole, with `patches`, which lie within, laid over it in
    /// order. Says what each new node covers. With nothing to cut, extend or lay over it is the same tree once more.
    ///
    /// # Errors
    ///
    /// [`Status::OutOfMemory`] if there are too many nodes. Nothing is changed then, and nothing was said.
    pub(crate) fn build(
        &mut self,
        base: &Root,
        pages: u32,
        patches: impl Iterator<Item = (u32, Extent)>,
        mut cover: impl FnMut(Extent),
    ) -> Result<Root, Status> {
        self.refer(base.0);
        let mut tree = base.0;
        let had = self.pages_of(tree);
        if had > pages {
            let (kept, cut) = self.split(tree, pages);
            self.discard(cut);
            tree = kept;
        } else if had < pages {
            tree = self.append(tree, Extent::hole(pages - had));
        }
        for (at, extent) in patches {
            debug_assert!(extent.is_valid() && at.checked_add(extent.count).is_some_and(|end| end <= pages));
            tree = self.lay(tree, at, extent);
            if self.used > self.max_nodes {
                break;
            }
        }
        if self.used > self.max_nodes {
            self.discard(tree);
            return Err(Status::OutOfMemory);
        }
        self.publish(tree, &mut cover);
        Ok(Root(tree))
    }

    /// Takes an object's reference to its tree away. What nobody refers to any more waits for [`Snapshots::sweep`].
    pub(crate) fn release(&mut self, Root(tree): Root) {
        self.unrefer(tree);
    }

    /// Frees dead nodes, up to `budget` units of work. Says what they covered.
    pub(crate) fn sweep(&mut self, budget: &mut usize, mut uncover: impl FnMut(Extent)) {
        while self.dead != NONE && *budget > 0 {
            *budget -= 1;
            let index = self.dead;
            let node = &mut self.nodes[index as usize];
            if !node.extent.is_hole()
                && let Some((head, tail)) = node.extent.split_at(SWEEP_PAGES)
            {
                node.extent = tail;
                uncover(head);
                continue;
            }
            let (left, right, extent) = (node.left, node.right, node.extent);
            self.dead = node.pages;
            self.free(index);
            self.unrefer(left);
            self.unrefer(right);
            if !extent.is_hole() {
                uncover(extent);
            }
        }
    }

    /// The extents of `pages` pages from page `first` on, in order, cut to that range, until `visit` says stop. Adjacent
    /// ones are not joined.
    pub(crate) fn walk(&self, root: &Root, first: u32, pages: u32, visit: &mut impl FnMut(Extent) -> bool) {
        let end = first.saturating_add(pages).min(self.pages(root));
        self.walk_below(root.0, 0, first, end, visit);
    }

    fn walk_below(&self, index: u32, start: u32, first: u32, end: u32, visit: &mut impl FnMut(Extent) -> bool) -> bool {
        if index == NONE || first >= end {
            return true;
        }
        let node = &self.nodes[index as usize];
        let at = start + self.pages_of(node.left);
        let after = at + node.extent.count;
        if first < at && !self.walk_below(node.left, start, first, end.min(at), visit) {
            return false;
        }
        let (from, to) = (first.max(at), end.min(after));
        if from < to {
            let skipped = if node.extent.is_hole() { 0 } else { from - at };
            let part = Extent { first: node.extent.first + skipped, count: to - from, ..node.extent };
            if !visit(part) {
                return false;
            }
        }
        end <= after || self.walk_below(node.right, after, first.max(after), end, visit)
    }

    /// Where one page is.
    pub(crate) fn page(&self, root: &Root, page: u32) -> Extent {
        let mut found = Extent::hole(1);
        self.walk(root, page, 1, &mut |extent| {
            found = extent;
            false
        });
        found
    }

    // What follows takes trees as owned references (`u32`, `NONE` for the empty tree) and returns them so: each reference
    // that goes in is used once.

    /// Lays `extent` over the pages from `at` on, one extent with its neighbours where it joins them.
    fn lay(&mut self, tree: u32, at: u32, mut extent: Extent) -> u32 {
        let (mut left, rest) = self.split(tree, at);
        let (covered, mut right) = self.split(rest, extent.count);
        self.discard(covered);
        if let Some((before, joined)) = self.last(left).and_then(|last| Some((last, last.join(extent)?))) {
            let (shorter, cut) = self.split(left, self.pages_of(left) - before.count);
            self.discard(cut);
            (left, extent) = (shorter, joined);
        }
        if let Some((after, joined)) = self.first(right).and_then(|first| Some((first, extent.join(first)?))) {
            let (cut, shorter) = self.split(right, after.count);
            self.discard(cut);
            (right, extent) = (shorter, joined);
        }
        self.join(left, extent, right)
    }

    fn append(&mut self, tree: u32, extent: Extent) -> u32 {
        let end = self.pages_of(tree);
        self.lay(tree, end, extent)
    }

    fn first(&self, mut tree: u32) -> Option<Extent> {
        let mut found = None;
        while tree != NONE {
            let node = &self.nodes[tree as usize];
            (found, tree) = (Some(node.extent), node.left);
        }
        found
    }

    fn last(&self, mut tree: u32) -> Option<Extent> {
        let mut found = None;
        while tree != NONE {
            let node = &self.nodes[tree as usize];
            (found, tree) = (Some(node.extent), node.right);
        }
        found
    }

    /// The first `at` pages, and the rest.
    fn split(&mut self, tree: u32, at: u32) -> (u32, u32) {
        if at == 0 {
            return (NONE, tree);
        }
        if at >= self.pages_of(tree) {
            return (tree, NONE);
        }
        let (left, extent, right) = self.expose(tree);
        let before = self.pages_of(left);
        if at <= before {
            let (kept, rest) = self.split(left, at);
            return (kept, self.join(rest, extent, right));
        }
        let into = at - before;
        match extent.split_at(into) {
            Some((head, tail)) => (self.join(left, head, NONE), self.join(NONE, tail, right)),
            None => {
                let (kept, rest) = self.split(right, into - extent.count);
                (self.join(left, extent, kept), rest)
            }
        }
    }

    /// One tree of all pages of `left`, then `extent`, then `right`, whatever their heights.
    fn join(&mut self, left: u32, extent: Extent, right: u32) -> u32 {
        if self.height(left) > self.height(right) + 2 {
            let (below, middle, end) = self.expose(left);
            let end = self.join(end, extent, right);
            self.balance(below, middle, end)
        } else if self.height(right) > self.height(left) + 2 {
            let (start, middle, below) = self.expose(right);
            let start = self.join(left, extent, start);
            self.balance(start, middle, below)
        } else {
            self.make(left, extent, right)
        }
    }

    /// As [`Snapshots::join`], of trees whose heights differ by three at most.
    fn balance(&mut self, left: u32, extent: Extent, right: u32) -> u32 {
        if self.height(left) > self.height(right) + 2 {
            let (outer, middle, inner) = self.expose(left);
            if self.height(outer) >= self.height(inner) {
                let right = self.make(inner, extent, right);
                return self.make(outer, middle, right);
            }
            let (start, top, end) = self.expose(inner);
            let (left, right) = (self.make(outer, middle, start), self.make(end, extent, right));
            self.make(left, top, right)
        } else if self.height(right) > self.height(left) + 2 {
            let (inner, middle, outer) = self.expose(right);
            if self.height(outer) >= self.height(inner) {
                let left = self.make(left, extent, inner);
                return self.make(left, middle, outer);
            }
            let (start, top, end) = self.expose(inner);
            let (left, right) = (self.make(left, extent, start), self.make(end, middle, outer));
            self.make(left, top, right)
        } else {
            self.make(left, extent, right)
        }
    }

    /// Takes a tree apart at its topmost node.
    fn expose(&mut self, tree: u32) -> (u32, Extent, u32) {
        let node = &mut self.nodes[tree as usize];
        let parts = (node.left, node.extent, node.right);
        if node.fresh && node.references == 1 {
            self.free(tree);
        } else {
            // Some object's tree has it too, or another part of the one that is being built.
            node.references -= 1;
            debug_assert!(node.references > 0, "the tree that is built upon stays");
            self.refer(parts.0);
            self.refer(parts.2);
        }
        parts
    }

    /// A fresh node.
    fn make(&mut self, left: u32, extent: Extent, right: u32) -> u32 {
        let node = Node {
            left,
            right,
            references: 1,
            pages: self.pages_of(left) + extent.count + self.pages_of(right),
            extent,
            height: 1 + self.height(left).max(self.height(right)),
            fresh: true,
        };
        self.used += 1;
        if self.unused == NONE {
            self.nodes.push(node);
            return u32::try_from(self.nodes.len() - 1).expect("nodes are limited");
        }
        let index = self.unused;
        self.unused = self.nodes[index as usize].pages;
        self.nodes[index as usize] = node;
        index
    }

    /// Lets go of a tree while the one it was taken from is still there: only fresh nodes can end with it.
    fn discard(&mut self, tree: u32) {
        if tree == NONE {
            return;
        }
        let node = &mut self.nodes[tree as usize];
        node.references -= 1;
        if node.references == 0 {
            debug_assert!(node.fresh, "the tree that is built upon stays");
            let (left, right) = (node.left, node.right);
            self.free(tree);
            self.discard(left);
            self.discard(right);
        }
    }

    /// The fresh nodes of a finished tree become nodes like all others.
    fn publish(&mut self, tree: u32, cover: &mut impl FnMut(Extent)) {
        if tree == NONE || !self.nodes[tree as usize].fresh {
            return;
        }
        let node = &mut self.nodes[tree as usize];
        node.fresh = false;
        let (left, extent, right) = (node.left, node.extent, node.right);
        if !extent.is_hole() {
            cover(extent);
        }
        self.publish(left, cover);
        self.publish(right, cover);
    }

    fn refer(&mut self, tree: u32) {
        if tree != NONE {
            let references = &mut self.nodes[tree as usize].references;
            *references = references.checked_add(1).expect("invariant 4: fewer parents and objects than that");
        }
    }

    fn unrefer(&mut self, tree: u32) {
        if tree == NONE {
            return;
        }
        let node = &mut self.nodes[tree as usize];
        node.references = node.references.checked_sub(1).expect("whoever let go had a reference");
        if node.references == 0 {
            node.pages = self.dead;
            self.dead = tree;
        }
    }

    fn free(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        (node.pages, node.height, node.references) = (self.unused, 0, 0);
        self.unused = index;
        self.used -= 1;
    }

    fn pages_of(&self, tree: u32) -> u32 {
        if tree == NONE { 0 } else { self.nodes[tree as usize].pages }
    }

    fn height(&self, tree: u32) -> u8 {
        if tree == NONE { 0 } else { self.nodes[tree as usize].height }
    }
}

/// What a recount finds in the trees.
pub(crate) struct Counted {
    /// How many nodes cover each extent, dead ones included.
    pub(crate) covered: Vec<Extent>,
    /// Nodes in use.
    pub(crate) nodes: usize,
}

impl Snapshots {
    /// Counts everything from scratch, given the trees of all objects.
    pub(crate) fn recount<'a>(&self, roots: impl Iterator<Item = &'a Root>) -> Result<Counted, String> {
        let mut references = vec![0u64; self.nodes.len()];
        let mut count = |index: u32| {
            if index != NONE {
                references[index as usize] += 1;
            }
        };
        roots.for_each(|root| count(root.0));
        let used = || self.nodes.iter().enumerate().filter(|(_, node)| node.height > 0);
        for (_, node) in used() {
            count(node.left);
            count(node.right);
        }
        let mut dead = std::collections::BTreeSet::new();
        let mut next = self.dead;
        while next != NONE {
            if !dead.insert(next as usize) {
                return Err(format!("tree node {next} is dead twice"));
            }
            next = self.nodes[next as usize].pages;
        }
        for (index, node) in used() {
            if u64::from(node.references) != references[index] {
                return Err(format!("tree node {index} has {} references, not {}", references[index], node.references));
            }
            if (node.references == 0) != dead.contains(&index) {
                return Err(format!("tree node {index} has {} references and waits to be swept", node.references));
            }
            if node.fresh {
                return Err(format!("tree node {index} was left behind by a build"));
            }
            let (left, right) = (self.height(node.left), self.height(node.right));
            if node.height != 1 + left.max(right) || left.abs_diff(right) > 2 {
                return Err(format!("tree node {index} is out of balance"));
            }
            if node.references > 0
                && node.pages != self.pages_of(node.left) + node.extent.count + self.pages_of(node.right)
            {
                return Err(format!("tree node {index} has not {} pages", node.pages));
            }
        }
        let covered: Vec<Extent> = used().map(|(_, node)| node.extent).collect();
        if covered.len() != self.used {
            return Err(format!("{} tree nodes are in use, not {}", covered.len(), self.used));
        }
        Ok(Counted { nodes: covered.len(), covered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmrpc_pages::SegmentId;
    use proptest::prelude::*;
    use std::collections::HashMap;

    impl Snapshots {
        fn share(&mut self, root: &Root) -> Root {
            let before = self.nodes();
            let shared =
                self.build(root, self.pages(root), std::iter::empty(), |_| panic!("nothing is new")).expect("no node");
            assert_eq!(self.nodes(), before, "taking a reference makes no nodes");
            shared
        }
    }

    /// The place of a page, or `None` in a hole.
    type Place = Option<(u32, u32)>;

    fn places(extent: Extent) -> impl Iterator<Item = Place> {
        (0..extent.count).map(move |i| (!extent.is_hole()).then(|| (extent.segment.0, extent.first + i)))
    }

    /// All trees, an array of places for each, and the counts that the trees told of.
    struct Model {
        snapshots: Snapshots,
        objects: Vec<(Root, Vec<Place>)>,
        covers: HashMap<(u32, u32), i64>,
    }

    impl Model {
        fn new(max_nodes: usize) -> Self {
            Self { snapshots: Snapshots::new(max_nodes), objects: Vec::new(), covers: HashMap::new() }
        }

        fn build(&mut self, base: Option<usize>, pages: u32, patches: &[(u32, Extent)]) -> bool {
            let (empty, nothing) = (Root::EMPTY, Vec::new());
            let (root, flat) = base.map_or((&empty, &nothing), |i| (&self.objects[i].0, &self.objects[i].1));
            let mut flat = flat.clone();
            flat.resize(pages as usize, None);
            for &(at, extent) in patches {
                flat.splice(at as usize..(at + extent.count) as usize, places(extent));
            }
            let covers = &mut self.covers;
            let built = self.snapshots.build(root, pages, patches.iter().copied(), |extent| {
                places(extent).flatten().for_each(|page| *covers.entry(page).or_default() += 1);
            });
            let made = built.is_ok();
            self.objects.extend(built.ok().map(|root| (root, flat)));
            made
        }

        fn sweep(&mut self, mut budget: usize) {
            let covers = &mut self.covers;
            self.snapshots.sweep(&mut budget, |extent| {
                places(extent).flatten().for_each(|page| *covers.entry(page).or_default() -= 1);
            });
        }

        fn check(&self) {
            let counted = self.snapshots.recount(self.objects.iter().map(|(root, _)| root)).expect("counts agree");
            let mut covers = HashMap::<_, i64>::new();
            counted.covered.iter().flat_map(|&e| places(e)).flatten().for_each(|p| *covers.entry(p).or_default() += 1);
            self.covers.iter().for_each(|(page, &n)| assert_eq!(covers.get(page).copied().unwrap_or(0), n, "{page:?}"));
            for (root, flat) in &self.objects {
                assert_eq!(self.snapshots.pages(root) as usize, flat.len());
                let mut found = Vec::new();
                self.snapshots.walk(root, 0, u32::MAX, &mut |extent| {
                    found.extend(places(extent));
                    true
                });
                assert_eq!(&found, flat);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Build { base: usize, pages: u32, patches: Vec<(u32, u32, u32, u32)> },
        Share(usize),
        Release(usize),
        Sweep(usize),
        Walk(usize, u32, u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let patch = (any::<u32>(), 0..4u32, 0..60u32, 1..12u32);
        let step = prop_oneof![
            4 => (any::<usize>(), 1..80u32, prop::collection::vec(patch, 0..8))
                .prop_map(|(base, pages, patches)| Step::Build { base, pages, patches }),
            1 => any::<usize>().prop_map(Step::Share),
            2 => any::<usize>().prop_map(Step::Release),
            2 => (0..6usize).prop_map(Step::Sweep),
            2 => (any::<usize>(), 0..90u32, 0..90u32).prop_map(|(i, first, pages)| Step::Walk(i, first, pages)),
        ];
        prop::collection::vec(step, 1..60)
    }

    fn run(steps: Vec<Step>, max_nodes: usize) {
        let mut model = Model::new(max_nodes);
        for step in steps {
            let objects = model.objects.len();
            match step {
                Step::Build { base, pages, patches } => {
                    let base = base % (objects + 1);
                    let patches: Vec<_> = patches
                        .into_iter()
                        .map(|(at, segment, first, count)| {
                            let at = at % pages;
                            let count = count.min(pages - at);
                            // The last segment is none.
                            let extent = Extent::new(SegmentId(segment), first, count);
                            (at, if segment == 3 { Extent::hole(count) } else { extent })
                        })
                        .collect();
                    let before = model.snapshots.nodes();
                    if !model.build((base < objects).then_some(base), pages, &patches) {
                        assert!(before + 200 > max_nodes, "there was room");
                        assert_eq!(model.snapshots.nodes(), before);
                    }
                }
                Step::Share(i) if objects > 0 => {
                    let (root, flat) = &model.objects[i % objects];
                    let copy = (model.snapshots.share(root), flat.clone());
                    model.objects.push(copy);
                }
                Step::Release(i) if objects > 0 => {
                    let (root, _) = model.objects.swap_remove(i % objects);
                    model.snapshots.release(root);
                }
                Step::Sweep(budget) => model.sweep(budget),
                Step::Walk(i, first, pages) if objects > 0 => {
                    let (root, flat) = &model.objects[i % objects];
                    let mut found = Vec::new();
                    model.snapshots.walk(root, first, pages, &mut |extent| {
                        found.extend(places(extent));
                        true
                    });
                    let flat: Vec<_> = flat.iter().skip(first as usize).take(pages as usize).copied().collect();
                    assert_eq!(found, flat);
                    if let Some(&place) = flat.first() {
                        assert_eq!(places(model.snapshots.page(root, first)).next(), Some(place));
                    }
                }
                _ => {}
            }
            model.check();
        }
        while let Some((root, _)) = model.objects.pop() {
            model.snapshots.release(root);
        }
        model.sweep(usize::MAX);
        model.check();
        assert_eq!(model.snapshots.nodes(), 0);
        assert!(model.covers.values().all(|&n| n == 0));
    }

    proptest! {
        /// Invariants 1, 2 and 3.
        #[test]
        fn agrees_with_flat_arrays(steps in steps()) {
            run(steps, 1 << 20);
        }

        /// Invariant 2: a build that finds no room leaves no trace.
        #[test]
        fn agrees_with_flat_arrays_when_nodes_are_few(steps in steps()) {
            run(steps, 40);
        }
    }

    #[test]
    fn an_edit_of_a_million_extents_makes_few_nodes() {
        let mut model = Model::new(1 << 21);
        // Every second page, so that no two join.
        let patches: Vec<_> = (0..1 << 12).map(|i| (i, Extent::new(SegmentId(0), 2 * i, 1))).collect();
        assert!(model.build(None, 1 << 12, &patches));
        let mut snapshots = model.snapshots;
        let (root, _) = model.objects.pop().expect("it was built");
        // 2^12 extents by 2^12 extents apart would take too long to model; 2^8 copies of them side by side will do.
        let mut wide = snapshots.share(&root);
        for i in 1..1u32 << 8 {
            let shifted = (0..1u32 << 12).map(|j| ((i << 12) + j, Extent::new(SegmentId(i), 2 * j, 1)));
            let next = snapshots.build(&wide, (i + 1) << 12, shifted, |_| {}).expect("there is room");
            snapshots.release(wide);
            wide = next;
        }
        snapshots.sweep(&mut usize::MAX.clone(), |_| {});
        let before = snapshots.nodes();
        assert!(before >= 1 << 20);
        let edited = snapshots
            .build(&wide, 1 << 20, [(777_777, Extent::new(SegmentId(999), 5, 1))].into_iter(), |_| {})
            .expect("there is room");
        assert!(snapshots.nodes() - before < 100, "{} nodes", snapshots.nodes() - before);
        let shared = snapshots.share(&edited);
        assert_eq!(snapshots.page(&shared, 777_777), Extent::new(SegmentId(999), 5, 1));
        // Freeing a large object is done in steps.
        snapshots.release(wide);
        snapshots.release(edited);
        snapshots.release(shared);
        snapshots.release(root);
        let mut steps = 0;
        while !snapshots.is_swept() {
            let before = snapshots.nodes();
            snapshots.sweep(&mut 1000, |_| {});
            assert!(before - snapshots.nodes() <= 1000);
            steps += 1;
        }
        assert!(steps > 1000);
        assert_eq!(snapshots.nodes(), 0);
    }
}
