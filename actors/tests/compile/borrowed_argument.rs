use dmrpc_actors::actor;

struct Greeter;

#[actor]
impl Greeter {
    #[message]
    fn greet(&mut self, name: &str) {}
}

fn main() {}
