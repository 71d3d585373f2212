"""Data sets, text and batches: `fn.data`."""

from .feed.arrays import Data as Data
from .feed.feed import Feed as Feed
from .feed.images import ImageFolder as ImageFolder
from .feed.images import image_folder as image_folder
from .feed.named import load_data as load_data
from .feed.numbers import DataError as DataError
from .feed.order import batches as batches
from .feed.order import class_weights as class_weights
from .feed.tables import Column as Column
from .feed.tables import Columns as Columns
from .feed.tables import table as table
from .feed.text import Text as Text
from .feed.text import load_text as load_text
from .feed.text import windows as windows
