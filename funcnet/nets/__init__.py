"""Whole networks, made of combinators alone; what trains them and draws from them: `fn.nets`."""

from .bert import BERT as BERT
from .convnet import LeNet as LeNet
from .ddpm import DDPM as DDPM
from .ddpm import sample_ddpm as sample_ddpm
from .encoder_decoder import EncoderDecoder as EncoderDecoder
from .gpt import GPT as GPT
from .gpt import lm_loss as lm_loss
from .mlp import MLP as MLP
from .noise import noise_schedule as noise_schedule
from .recurrent import CharRNN as CharRNN
from .recurrent import sample_recurrent as sample_recurrent
from .resnet import ResNet as ResNet
from .sampling import sample as sample
from .transcription import ctc_decode as ctc_decode
from .unet import UNet as UNet
from .vae import VAE as VAE
from .vae import negative_elbo as negative_elbo
from .vit import ClassToken as ClassToken
from .vit import ViT as ViT
