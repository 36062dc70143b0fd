use dmrpc_actors::actor;

struct Engine;

#[actor]
impl Engine {
    #[message]
    fn stop(&mut self) {}
}

fn main() {}
