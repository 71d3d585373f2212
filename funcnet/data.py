"""Data sets, text and batches: `fn.data`."""

from .feed.arrays import Data as Data
from .feed.named import load_data as load_data
from .feed.order import batches as batches
from .feed.text import Text as Text
from .feed.text import load_text as load_text
from .feed.text import windows as windows
