# Completion for `outpost`, made by `outpost completion bash`. For one shell: source <(outpost completion bash)
_outpost() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb="" at
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${COMP_WORDS[at]} in
            -s | --system) ((at++)) ;;
            -*) ;;
            *) case "$verb ${COMP_WORDS[at]}" in
                    " serve") verb="serve" ;;
                    " send") verb="send" ;;
                    " selftest") verb="selftest" ;;
                    " optimise") verb="optimise" ;;
                    " bundle") verb="bundle" ;;
                    "bundle check") verb="bundle check" ;;
                    " token") verb="token" ;;
                    " status") verb="status" ;;
                    " top") verb="top" ;;
                    " events") verb="events" ;;
                    " studies") verb="studies" ;;
                    " config") verb="config" ;;
                    "config check") verb="config check" ;;
                    " backup") verb="backup" ;;
                    " restore") verb="restore" ;;
                    " completion") verb="completion" ;;
                    " filter") verb="filter" ;;
                    "filter explain") verb="filter explain" ;;
                    "filter pixels") verb="filter pixels" ;;
                    "filter check") verb="filter check" ;;
                    " quarantine") verb="quarantine" ;;
                    "quarantine list") verb="quarantine list" ;;
                    "quarantine show") verb="quarantine show" ;;
                    "quarantine thumbnail") verb="quarantine thumbnail" ;;
                    "quarantine resubmit") verb="quarantine resubmit" ;;
                    "quarantine export") verb="quarantine export" ;;
                    "quarantine report") verb="quarantine report" ;;
                    " ladder") verb="ladder" ;;
                    "ladder status") verb="ladder status" ;;
                    "ladder reset") verb="ladder reset" ;;
                    " drift") verb="drift" ;;
                    "drift status") verb="drift status" ;;
                    "drift freeze") verb="drift freeze" ;;
                    "drift report") verb="drift report" ;;
                    "drift merge") verb="drift merge" ;;
                    "drift replay") verb="drift replay" ;;
                    " journal") verb="journal" ;;
                    "journal check") verb="journal check" ;;
                    "journal rebuild") verb="journal rebuild" ;;
                    " fleet") verb="fleet" ;;
                    "fleet sync") verb="fleet sync" ;;
                    "fleet serve") verb="fleet serve" ;;
                    "fleet table") verb="fleet table" ;;
                    " platform") verb="platform" ;;
                    "platform verdict") verb="platform verdict" ;;
                    "platform facts") verb="platform facts" ;;
                    "platform codes") verb="platform codes" ;;
                esac ;;
        esac
    done
    local words="" files="" paths=""
    case $before in
        -s | --system)
            words=$(cd /etc/outpost 2>/dev/null && ls -- *.env 2>/dev/null)
            COMPREPLY=($(compgen -W "${words//.env/}" -- "$word"))
            return ;;
    esac
    case "$verb $before" in
        "serve --config") files=1 ;;
        "selftest --config") files=1 ;;
        "selftest --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "optimise --config") files=1 ;;
        "optimise --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "bundle check --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "status --config") files=1 ;;
        "status --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "top --config") files=1 ;;
        "top --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "events --config") files=1 ;;
        "events --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "studies --config") files=1 ;;
        "studies --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "studies --state") COMPREPLY=($(compgen -W "receiving complete inferring delivering delivered rejected quarantined" -- "$word")); return ;;
        "config check --config") files=1 ;;
        "backup --config") files=1 ;;
        "backup -o" | "backup --output") files=1 ;;
        "restore --config") files=1 ;;
        "filter explain --rules") files=1 ;;
        "filter explain --bundle") files=1 ;;
        "filter explain --config") files=1 ;;
        "filter explain --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "filter pixels --rules") files=1 ;;
        "filter pixels --bundle") files=1 ;;
        "filter pixels --config") files=1 ;;
        "filter pixels --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "filter check --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "quarantine list --config") files=1 ;;
        "quarantine list --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "quarantine show --config") files=1 ;;
        "quarantine show --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "quarantine thumbnail --config") files=1 ;;
        "quarantine thumbnail --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "quarantine thumbnail -o" | "quarantine thumbnail --output") files=1 ;;
        "quarantine resubmit --config") files=1 ;;
        "quarantine resubmit --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "quarantine export --config") files=1 ;;
        "quarantine export --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "quarantine export -o" | "quarantine export --output") files=1 ;;
        "quarantine report --config") files=1 ;;
        "quarantine report --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "quarantine report --format") COMPREPLY=($(compgen -W "text html json" -- "$word")); return ;;
        "quarantine report -o" | "quarantine report --output") files=1 ;;
        "ladder status --config") files=1 ;;
        "ladder status --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "ladder reset --config") files=1 ;;
        "ladder reset --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "drift status --config") files=1 ;;
        "drift freeze --config") files=1 ;;
        "drift report --config") files=1 ;;
        "drift report -o" | "drift report --output" | "drift report --out") files=1 ;;
        "drift merge -o" | "drift merge --output" | "drift merge --out") files=1 ;;
        "drift replay -o" | "drift replay --output" | "drift replay --out") files=1 ;;
        "journal check --config") files=1 ;;
        "journal rebuild --config") files=1 ;;
        "fleet sync --config") files=1 ;;
        "fleet serve --config") files=1 ;;
        "fleet table --config") files=1 ;;
        "platform verdict --modules") COMPREPLY=($(compgen -W "open proprietary" -- "$word")); return ;;
        "platform verdict --collected") files=1 ;;
        "platform verdict --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
        "platform codes --language") COMPREPLY=($(compgen -W "en ru" -- "$word")); return ;;
    esac
    case $verb in
        "") words="--help --version serve send selftest optimise bundle token status top events studies config backup restore completion filter quarantine ladder drift journal fleet platform --system" ;;
        "serve") words="--help --config" ;;
        "send") words="--help --host --port --called-aet --calling-aet"; paths=1 ;;
        "selftest") words="--help --config --json --language" ;;
        "optimise") words="--help --config --json --language" ;;
        "bundle") words="--help check" ;;
        "bundle check") words="--help --json --language"; paths=1 ;;
        "token") words="--help read send admin" ;;
        "status") words="--help --config --language --json --drained" ;;
        "top") words="--help --config --language --json --interval --once" ;;
        "events") words="--help --config --language --json --code --since --until --limit --explain" ;;
        "studies") words="--help --config --language --json --marked --held --state --reason --sender --since --until --limit" ;;
        "config") words="--help check" ;;
        "config check") words="--help --config --json"; paths=1 ;;
        "backup") words="--help --config --output" ;;
        "restore") words="--help --config"; paths=1 ;;
        "completion") words="--help bash" ;;
        "filter") words="--help explain pixels check" ;;
        "filter explain") words="--help --rules --bundle --config --language --json"; paths=1 ;;
        "filter pixels") words="--help --rules --bundle --config --language --json"; paths=1 ;;
        "filter check") words="--help --language --json"; paths=1 ;;
        "quarantine") words="--help list show thumbnail resubmit export report" ;;
        "quarantine list") words="--help --config --language --reason --sender --since --after --limit --gone --json" ;;
        "quarantine show") words="--help --config --language --identity --json" ;;
        "quarantine thumbnail") words="--help --config --language --image --large --output" ;;
        "quarantine resubmit") words="--help --config --language --skip-filter" ;;
        "quarantine export") words="--help --config --language --output" ;;
        "quarantine report") words="--help --config --language --days --until --format --output" ;;
        "ladder") words="--help status reset" ;;
        "ladder status") words="--help --config --language --json" ;;
        "ladder reset") words="--help --config --language --json" ;;
        "drift") words="--help status freeze report merge replay" ;;
        "drift status") words="--help --config --json" ;;
        "drift freeze") words="--help --config --from --to" ;;
        "drift report") words="--help --config --output --out" ;;
        "drift merge") words="--help --output --out"; paths=1 ;;
        "drift replay") words="--help --column --reference --from --to --window --min-sample --effect --effect-numbers --output --out"; paths=1 ;;
        "journal") words="--help check rebuild" ;;
        "journal check") words="--help --config --json" ;;
        "journal rebuild") words="--help --config --json" ;;
        "fleet") words="--help sync serve table" ;;
        "fleet sync") words="--help --config --strict" ;;
        "fleet serve") words="--help --config" ;;
        "fleet table") words="--help --config" ;;
        "platform") words="--help verdict facts codes" ;;
        "platform verdict") words="--help --gpu --driver --modules --cuda --torch --os --min-driver --min-capability --collected --date --language --json --html" ;;
        "platform facts") words="--help"; paths=1 ;;
        "platform codes") words="--help --language" ;;
    esac
    if [[ $files || ( $paths && $word != -* ) ]]; then
        COMPREPLY=($(compgen -f -- "$word"))
    fi
    [[ $files ]] || COMPREPLY+=($(compgen -W "$words" -- "$word"))
}
complete -o filenames -F _outpost outpost
