use dmrpc_actors::actor;

struct Twins;

#[actor]
impl Twins {
    #[message(id = 4)]
    fn first(&mut self) {}

    #[message(id = 4)]
    fn second(&mut self) {}
}

fn main() {}
