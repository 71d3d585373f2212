"""Data sets, text and batches: `fn.data`."""

from .train.arrays import Data as Data
from .train.data import batches as batches
from .train.data import load_data as load_data
from .train.text import Text as Text
from .train.text import load_text as load_text
from .train.text import windows as windows
