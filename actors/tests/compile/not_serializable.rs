use dmrpc_actors::actor;

struct Opaque;

struct Keeper;

#[actor]
impl Keeper {
    #[message]
    fn keep(&mut self, opaque: Opaque) {}
}

fn main() {}
