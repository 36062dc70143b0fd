"""`cloudpickle`, under the name that Ray programs import it by."""

from cloudpickle import load, loads, register_pickle_by_value, unregister_pickle_by_value

from pydmrpc._pickling import Pickler as CloudPickler
from pydmrpc._pickling import dump, dumps

__all__ = ["CloudPickler", "dump", "dumps", "load", "loads", "register_pickle_by_value", "unregister_pickle_by_value"]
