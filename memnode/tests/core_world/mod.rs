//! A world for the core to live in: segments of bytes, links that carry messages in order, and a driver that carries out what
//! the core says. No time passes and nothing is delivered but when a test says so.

#![allow(dead_code, reason = "each test uses its part of the world")]

pub(crate) mod client;
mod hostile;

use dmrpc_memnode::core::{Access, Action, Actions, Core, CoreConfig, Event, LinkId, Now, Region, Ticket};
use dmrpc_pages::Extent;
use dmrpc_test_random::Random;
use dmrpc_wire::{Hello, Request, Stats};
use std::collections::{BTreeMap, VecDeque};

pub(crate) const PAGE: usize = 4096;

/// Something that goes to a client.
#[derive(Debug)]
pub(crate) enum Down {
    Head(Vec<u8>),
    /// A head and bytes that are taken from the pages when they are delivered.
    Pages {
        head: Vec<u8>,
        ticket: Ticket,
        extents: Vec<Extent>,
        skip: usize,
        length: usize,
    },
    Segment(u32),
}

pub(crate) struct Link {
    pub(crate) local: bool,
    /// Heads and bodies on their way to the node.
    pub(crate) up: VecDeque<(Vec<u8>, Vec<u8>)>,
    pub(crate) down: VecDeque<Down>,
    /// Where the body at the front of `up` goes. Nothing else is read before.
    pub(crate) receiving: Option<(Ticket, Vec<Region>)>,
    /// The body at the front waits to be told where to go.
    pub(crate) body_waits: bool,
    pub(crate) closing: bool,
}

pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    pub(crate) access: Access,
    pub(crate) sealed: bool,
}

pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) now: Now,
    pub(crate) random: Random,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) segments: BTreeMap<u32, Memory>,
    /// Segments that are asked for and not there.
    pub(crate) making: BTreeMap<u32, (u32, Access)>,
    actions: Actions,
    next_link: u64,
    steps: u64,
}

impl World {
    pub(crate) fn new(config: CoreConfig, seed: u64) -> Self {
        Self {
            core: Core::new(config),
            now: 0,
            random: Random(seed),
            links: BTreeMap::new(),
            segments: BTreeMap::new(),
            making: BTreeMap::new(),
            actions: Actions::default(),
            next_link: 0,
            steps: 0,
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.core.stats()
    }

    pub(crate) fn connect(&mut self, local: bool) -> LinkId {
        self.next_link += 1;
        let id = LinkId(self.next_link);
        let link = Link {
            local,
            up: VecDeque::new(),
            down: VecDeque::new(),
            receiving: None,
            body_waits: false,
            closing: false,
        };
        self.links.insert(id, link);
        id
    }

    /// One event, and all that follows at once; then everything is counted from scratch.
    pub(crate) fn event(&mut self, event: Event<'_>) {
        self.core.step(self.now, event, &mut self.actions);
        self.steps += 1;
        // A driver settles after each batch of events, of one or of several.
        if self.random.below(4) > 0 {
            self.core.settle(self.now, &mut self.actions);
        }
        self.act();
        if let Err(broken) = self.core.recount() {
            panic!("after {event:?}: {broken}");
        }
    }

    pub(crate) fn settle(&mut self) {
        loop {
            self.core.settle(self.now, &mut self.actions);
            self.act();
            self.core.recount().expect("settled");
            if self.core.is_settled() {
                return;
            }
        }
    }

    pub(crate) fn tick(&mut self, ms: u64) {
        self.now += ms;
        self.event(Event::Tick);
    }

    fn act(&mut self) {
        let actions = std::mem::take(&mut self.actions);
        for action in &actions.list {
            self.carry_out(action, &actions);
        }
        self.actions = actions;
        self.actions.clear();
    }

    fn carry_out(&mut self, action: &Action, all: &Actions) {
        match action {
            Action::Send { link, head } => {
                self.link(*link).down.push_back(Down::Head(all.heads[head.clone()].to_vec()));
            }
            Action::SendPages { link, head, ticket, extents, skip, length } => {
                let head = all.heads[head.clone()].to_vec();
                let extents = all.extents[extents.clone()].to_vec();
                let pages =
                    Down::Pages { head, ticket: *ticket, extents, skip: *skip as usize, length: *length as usize };
                self.link(*link).down.push_back(pages);
            }
            Action::Receive { link, ticket, regions } => {
                let link = self.link(*link);
                assert!(std::mem::take(&mut link.body_waits), "a body waits");
                link.receiving = Some((*ticket, all.regions[regions.clone()].to_vec()));
            }
            Action::Discard { link } => {
                let link = self.link(*link);
                assert!(std::mem::take(&mut link.body_waits), "a body waits");
                link.up.pop_front();
                link.receiving = None;
            }
            Action::CopyPage { from, to } => {
                assert_eq!((from.count, to.count), (1, 1));
                let page = self.pages(*from);
                let memory = self.segments.get_mut(&to.segment.0).expect("copied to a segment that is there");
                assert_eq!(memory.access, Access::Node);
                memory.bytes[to.first as usize * PAGE..][..PAGE].copy_from_slice(&page);
            }
            Action::ZeroBytes { region } => self.region(region).fill(0),
            Action::MakeSegment { segment, pages, access } => {
                assert!(!self.segments.contains_key(segment));
                assert!(self.making.insert(*segment, (*pages, *access)).is_none());
            }
            Action::PassSegment { link, segment } => {
                assert!(self.segments.contains_key(segment));
                let link = self.link(*link);
                assert!(link.local, "descriptors go to clients on this host");
                link.down.push_back(Down::Segment(*segment));
            }
            Action::SealSegment { segment } => {
                self.segments.get_mut(segment).expect("sealed while there").sealed = true;
            }
            Action::DropSegment { segment } => {
                let memory = self.segments.remove(segment);
                assert!(memory.is_some(), "dropped once");
            }
            Action::Register { .. } | Action::Post { .. } => unreachable!("no client reaches registered memory"),
            Action::Close { link } => self.link(*link).closing = true,
        }
    }

    fn link(&mut self, link: LinkId) -> &mut Link {
        self.links.get_mut(&link).expect("actions name links that are there")
    }

    fn region(&mut self, region: &Region) -> &mut [u8] {
        let memory = self.segments.get_mut(&region.segment).expect("written segments are there");
        assert_eq!(memory.access, Access::Node);
        &mut memory.bytes[region.offset as usize..][..region.length as usize]
    }

    /// The bytes of some pages.
    pub(crate) fn pages(&self, extent: Extent) -> Vec<u8> {
        if extent.is_hole() {
            return vec![0; extent.count as usize * PAGE];
        }
        let memory = self.segments.get(&extent.segment.0).expect("pages of a segment that is there");
        memory.bytes[extent.first as usize * PAGE..extent.end() as usize * PAGE].to_vec()
    }

    /// Puts a request on its way.
    pub(crate) fn send(
        &mut self,
        link: LinkId,
        request: &Request<'_>,
        sequence: u64,
        acknowledged: u64,
        body: Vec<u8>,
    ) {
        let mut head = Vec::new();
        request.encode(sequence, acknowledged, &mut head);
        self.link(link).up.push_back((head, body));
    }

    /// Delivers what is first on its way to the node. Whether there was something.
    pub(crate) fn deliver_up(&mut self, id: LinkId) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        if link.body_waits || link.receiving.is_some() || link.closing {
            return false;
        }
        let Some((head, body)) = link.up.front() else { return false };
        let (head, body_len, local) = (head.clone(), body.len() as u64, link.local);
        if body_len == 0 {
            link.up.pop_front();
        } else {
            link.body_waits = true;
        }
        match Request::decode(&head) {
            Ok((head, Request::Hello(hello))) => self.hello(id, hello, head.sequence, local),
            Ok((head, request)) => self.event(Event::Request { link: id, head, request, body_len }),
            Err(_) => self.event(Event::Malformed { link: id, body_len }),
        }
        true
    }

    fn hello(&mut self, link: LinkId, hello: Hello<'_>, sequence: u64, local: bool) {
        let entropy = self.random.array();
        self.event(Event::Hello { link, hello, sequence, local, reaches: None, entropy });
    }

    /// Finishes the body that is being received.
    pub(crate) fn finish_body(&mut self, id: LinkId) -> bool {
        let Some((ticket, regions)) = self.links.get_mut(&id).and_then(|link| link.receiving.take()) else {
            return false;
        };
        let (_, body) = self.link(id).up.pop_front().expect("the body that is received");
        let mut rest = &body[..];
        for region in &regions {
            let (part, more) = rest.split_at(region.length as usize);
            self.region(region).copy_from_slice(part);
            rest = more;
        }
        assert!(rest.is_empty(), "the regions are as long as the body");
        self.event(Event::Received { ticket, whole: true });
        true
    }

    /// Takes what is first on its way to the client: a head, and the bytes that came with it.
    pub(crate) fn deliver_down(&mut self, id: LinkId) -> Option<(Vec<u8>, Vec<u8>)> {
        match self.links.get_mut(&id)?.down.pop_front()? {
            Down::Head(head) => Some((head, Vec::new())),
            Down::Segment(_) => self.deliver_down(id),
            Down::Pages { head, ticket, extents, skip, length } => {
                let bytes: Vec<u8> = extents.iter().flat_map(|&extent| self.pages(extent)).collect();
                let body = bytes[skip..skip + length].to_vec();
                self.event(Event::Sent { ticket });
                Some((head, body))
            }
        }
    }

    pub(crate) fn finish_segment(&mut self, segment: u32, works: bool) {
        let (pages, access) = self.making.remove(&segment).expect("it is being made");
        if works {
            let bytes = vec![0; pages as usize * PAGE];
            self.segments.insert(segment, Memory { bytes, access, sealed: false });
            self.event(Event::SegmentMade { segment, file_offset: 0 });
        } else {
            self.event(Event::SegmentFailed { segment });
        }
    }

    /// The link ends, with all that is on its way over it.
    pub(crate) fn disconnect(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (receiving, down) = (link.receiving.take(), std::mem::take(&mut link.down));
        link.up.clear();
        link.closing = true;
        // A driver may or may not say so of what was under way.
        if self.random.one_in(2) {
            if let Some((ticket, _)) = receiving {
                self.event(Event::Received { ticket, whole: false });
            }
            for down in down {
                if let Down::Pages { ticket, .. } = down {
                    self.event(Event::Sent { ticket });
                }
            }
        }
        self.event(Event::Disconnected { link: id });
        self.links.remove(&id);
    }

    /// Delivers everything there is in order, until nothing is under way any more; what comes to clients stays there.
    pub(crate) fn run(&mut self) {
        for _ in 0..10_000 {
            let links: Vec<LinkId> = self.links.keys().copied().collect();
            let mut moved = false;
            for link in links {
                while self.deliver_up(link) || self.finish_body(link) {
                    moved = true;
                }
                if self.links.get(&link).is_some_and(|link| link.closing && link.down.is_empty()) {
                    self.disconnect(link);
                    moved = true;
                }
            }
            while let Some((&segment, _)) = self.making.first_key_value() {
                self.finish_segment(segment, true);
                moved = true;
            }
            self.settle();
            if !moved {
                return;
            }
        }
        panic!("it goes round in circles");
    }
}
